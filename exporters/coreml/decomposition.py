"""Operators that the converter lacks, replaced by those that it has."""

import torch
from torch.export import ExportedProgram

from exporters.mil.toolkit import is_torch_fx_node_supported
from exporters.quiet import errors_only


@errors_only("coremltools")
def supported(program: ExportedProgram) -> ExportedProgram:
    """The program with every operator decomposed that the converter lacks, as far as PyTorch knows how.

    Args:
        program: The captured network.

    Returns:
        A program that computes the same.
    """
    program = program.run_decompositions({})
    table = {**torch.export.default_decompositions(), torch.ops.aten.alias.default: lambda tensor: tensor}
    while missing := {
        node.target
        for node in program.graph.nodes
        if node.op == "call_function" and not is_torch_fx_node_supported(node) and node.target in table
    }:
        program = program.run_decompositions({target: table[target] for target in missing})
    return program

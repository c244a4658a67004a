"""One graph for all runtimes: a network captured by `torch.export`."""

from collections.abc import Sequence

import torch
from torch.export import Dim, ExportedProgram

from exporters.errors import CaptureError
from exporters.network import TORCH_ERRORS, Network


def capture(network: Network) -> ExportedProgram:
    """Capture a network with the dynamic dimensions of its signature.

    Args:
        network: The network; it is captured in the type in which its module computes.

    Returns:
        The program. It accepts at least the sizes that the signature declares.

    Raises:
        CaptureError: If `torch.export` cannot follow the network's code, or the graph accepts fewer sizes than
            declared.
    """
    dimensions = {
        name: Dim(name, min=ends.minimum, max=ends.maximum) for name, ends in network.signature.dimensions.items()
    }
    shapes = tuple(
        {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in network.signature.inputs
    )
    try:
        with torch.no_grad():
            program = torch.export.export(network.module, network.example, dynamic_shapes=(shapes,))
    except TORCH_ERRORS as error:
        reason = str(error).strip().partition("\n")[0]
        raise CaptureError(
            f"`model` must be traceable by torch.export, but {type(network.module.module).__name__} raised "
            f"{type(error).__name__}: {reason} Take Python control flow that depends on tensor values, and batch sizes "
            f"written as numbers, out of its forward."
        ) from error
    _check_ranges(network, program)
    return program


def _check_ranges(network: Network, program: ExportedProgram) -> None:
    accepted = _input_shapes(program)
    for spec, shape in zip(network.signature.inputs, accepted, strict=True):
        for expected, size in zip(spec.shape, shape, strict=True):
            if isinstance(expected, int):
                continue
            low, high = network.signature.dimensions[expected]
            found = program.range_constraints.get(size.node.expr) if isinstance(size, torch.SymInt) else None
            if found is None or found.lower > low or found.upper < high:
                raise CaptureError(
                    f"dimension `{expected}` of input `{spec.name}` must accept {low} to {high}, but the network "
                    f"accepts {found or size}; declare that range, or remove the cause from its forward."
                )


def _input_shapes(program: ExportedProgram) -> list[Sequence[int | torch.SymInt]]:
    names = set(program.graph_signature.user_inputs)
    return [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]

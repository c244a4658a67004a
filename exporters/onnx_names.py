"""Names of ONNX nodes and values: the file itself says which module and which captured value they come from."""

import onnx
from torch import fx
from torch.export import ExportedProgram

from exporters.layers import decomposed_names, layer_name, module_path, producer

_SCOPES = "pkg.torch.onnx.name_scopes"


def layer_of(node: onnx.NodeProto) -> str:
    """Module path of a node that `carry_names` named.

    Example:
        >>> layer_of(onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="blocks.0.attn.qkv/linear"))
        'blocks.0.attn.qkv'
    """
    return str(node.name).partition("/")[0]


def carry_names(model: onnx.ModelProto, converted: ExportedProgram, program: ExportedProgram) -> None:
    """Name nodes ``<module path>/<value>`` and values as in ``program.run_decompositions({})``, in place.

    What PyTorch's exporter says about every node's origin, with paths of source files on this machine, is removed.

    Args:
        model: What PyTorch's exporter made.
        converted: The program that it made it from.
        program: What was captured.
    """
    nodes = {node.name: node for node in converted.graph.nodes}
    fixed = {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.initializer)}
    names = decomposed_names(nodes.values(), program)
    values = {value: value for value in fixed}
    taken = fixed | set(names.values())
    for node in model.graph.node:
        for value in node.output:
            values.setdefault(value, names.get(value) or _free(value, taken))
    for node in model.graph.node:
        node.input[:] = [values.get(value, value) for value in node.input]
        node.output[:] = [values.get(value, value) for value in node.output]
        node.name = f"{_layer(node, nodes)}/{node.output[0]}"
        del node.metadata_props[:]
    for value in model.graph.value_info:
        value.name = values.get(value.name, value.name)
        del value.metadata_props[:]
    for named in (*model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del named.metadata_props[:]


def _free(value: str, taken: set[str]) -> str:
    """A name that no captured value has."""
    while value in taken:
        value += "_"
    return value


def _layer(node: onnx.NodeProto, nodes: dict[str, fx.Node]) -> str:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    origin = nodes.get(scopes.rpartition("'")[0].rpartition("'")[2])
    if origin is None:
        return ""
    computing = producer(origin) if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") else None
    return layer_name(computing) if computing is not None else module_path(origin)

"""ONNX graphs: made from a network, checked, described; what every exporter that goes through ONNX shares."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
import torch

from exporters.capture import capture
from exporters.errors import ConversionError
from exporters.network import TORCH_ERRORS, Network
from exporters.onnx_names import carry_names
from exporters.readback import FoundTensor
from exporters.signature import DimensionRange, Signature

# A protobuf message, which an ONNX file is, holds less than 2 GiB.
_LARGEST_BYTES = 2**31 - 1
_UNBOUNDED = 2**63 - 1


def to_onnx(network: Network, *, opset: int | None = None) -> onnx.ModelProto:
    """Convert a network, with the names of its signature, in the type in which its module computes.

    Args:
        network: The network.
        opset: Version of the operator set; ``None`` for the one that PyTorch's exporter recommends.

    Returns:
        The graph. It need not be valid: operators may lack the network's type in that operator set; see `check_model`.

    Raises:
        CaptureError: If `torch.export` cannot capture the network.
        ConversionError: If PyTorch's exporter refuses the graph.
    """
    program = capture(network)
    try:
        converted = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[spec.name for spec in network.signature.inputs],
            output_names=[spec.name for spec in network.signature.outputs],
        )
    except TORCH_ERRORS as error:
        raise ConversionError(f"`model` must be convertible to ONNX, but torch.onnx raised: {error}") from error
    if converted is None:
        raise ConversionError("`model` must be convertible to ONNX, but torch.onnx returned nothing.")
    for weight in tuple(converted.model.graph.initializers.values()):
        weight.name = str(weight.name).removeprefix("module.")
    model = converted.model_proto
    if converted.exported_program is not None:
        carry_names(model, converted.exported_program, program)
    _name_dimensions(model, network.signature)
    return model


def check_model(model: onnx.ModelProto) -> None:
    """Raise unless a graph is valid ONNX, sorted and fully typed, and fits into one file.

    Raises:
        ConversionError: If it is not.
    """
    if model.ByteSize() > _LARGEST_BYTES:
        raise ConversionError(f"`model` must fit into one ONNX file of 2 GiB, got {model.ByteSize()} bytes.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"the graph must be valid ONNX, but the checker says: {error}") from error


def save_model(model: onnx.ModelProto, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Check a graph and write it as one file that describes itself.

    Raises:
        ConversionError: If the graph is not valid.
    """
    onnx.helper.set_model_props(model, dict(metadata))
    check_model(model)
    onnx.save(model, path)


def found_tensors(values: Iterable[onnx.ValueInfoProto]) -> list[FoundTensor]:
    """Inputs or outputs as the file has them."""
    return [
        FoundTensor(
            value.name,
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(
                dimension.dim_value if dimension.HasField("dim_value") else DimensionRange(0, _UNBOUNDED)
                for dimension in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    ]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of the standard operator set that a graph uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Every tensor that is known before a run, by the name of its value: initializers and ``Constant`` nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Graphs inside a node, such as the branches of an ``If``."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes of a graph and of the graphs inside it into an order in which every value comes before its use.

    Nodes that are in order already keep it. ONNX demands this order; converters that insert nodes append them.

    Raises:
        ConversionError: If there is no such order, because a value depends on itself.

    Example:
        >>> import onnx
        >>> nodes = [onnx.helper.make_node("Neg", ["y"], ["z"]), onnx.helper.make_node("Relu", ["x"], ["y"])]
        >>> graph = onnx.helper.make_graph(nodes, "g", [], [])
        >>> sort_nodes(graph)
        >>> [node.op_type for node in graph.node]
        ['Relu', 'Neg']
    """
    for node in graph.node:
        for inner in subgraphs(node):
            sort_nodes(inner)
    waiting = list(graph.node)
    made_here = {name for node in waiting for name in node.output}
    ready: set[str] = set()
    ordered: list[onnx.NodeProto] = []
    while waiting:
        later: list[onnx.NodeProto] = []
        for node in waiting:
            if (_used(node) & made_here) <= ready:
                ready.update(node.output)
                ordered.append(node)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ConversionError(f"the graph must have no cycle, but `{later[0].output[0]}` depends on itself.")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _used(node: onnx.NodeProto) -> set[str]:
    inner = {name for graph in subgraphs(node) for inside in graph.node for name in _used(inside)}
    return set(node.input) | inner


def _name_dimensions(model: onnx.ModelProto, signature: Signature) -> None:
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in (*signature.inputs, *signature.outputs):
        for size, dimension in zip(spec.shape, values[spec.name].type.tensor_type.shape.dim, strict=True):
            if isinstance(size, str):
                dimension.dim_param = size

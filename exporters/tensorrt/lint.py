"""What TensorRT demands of a graph, looked for before its parser sees it: the parser's own words are hard to follow."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from exporters.errors import ConversionError
from exporters.onnx_graph import check_model, constants, sort_nodes

_SHOWN = 5


def lint_graph(model: onnx.ModelProto) -> None:
    """Sort a graph, check it, and hold its Q/DQ pairs against TensorRT's rules.

    The rules: operators of ONNX's own set only; int8 with zero points of 0; scales that are known before a run, finite
    and above 0 in their type; one scale per tensor of activations, and at most one per channel of a weight; behind
    every ``QuantizeLinear`` a ``DequantizeLinear`` with the same scale; no quantised bias.

    Args:
        model: The graph; its nodes are put into order.

    Raises:
        ConversionError: If it breaks a rule; the message has the first five breaches.

    Source:
        NVIDIA, TensorRT documentation, "Working with Quantized Types", explicit quantization.
    """
    sort_nodes(model.graph)
    check_model(model)
    breaches = list(_Linter(model).breaches())
    if breaches:
        more = f"; and {len(breaches) - _SHOWN} more" if len(breaches) > _SHOWN else ""
        raise ConversionError(
            f"the graph must be one that TensorRT takes, but {'; '.join(breaches[:_SHOWN])}{more}. Quantise with "
            f"symmetric int8, per tensor for activations and per channel for weights; before training, that is "
            f"FakeQuantization(activations='symmetric')."
        )


@dataclass(slots=True)
class _Linter:
    model: onnx.ModelProto
    known: dict[str, np.ndarray] = field(init=False)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    users: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = {name: numpy_helper.to_array(tensor) for name, tensor in constants(self.model).items()}
        for node in self.model.graph.node:
            self.makers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def breaches(self) -> Iterator[str]:
        for node in self.model.graph.node:
            if node.domain not in ("", "ai.onnx"):
                yield f"`{node.name}` is {node.domain}.{node.op_type}, which only another runtime has"
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                yield from self._pair(node)

    def _pair(self, node: onnx.NodeProto) -> Iterator[str]:
        source = self.known.get(node.input[0])
        if source is not None and source.dtype == np.int32:
            yield f"`{node.input[0]}` is a bias in int32, which has to stay in floating point"
            return
        yield from self._zero_point(node)
        yield from self._scale(node)
        if node.op_type == "QuantizeLinear":
            yield from self._partner(node)

    def _zero_point(self, node: onnx.NodeProto) -> Iterator[str]:
        name = node.input[2] if len(node.input) > 2 else ""
        zero = self.known.get(name)
        if zero is None and name:
            yield f"the zero point of `{node.name}` is computed in the graph"
        elif zero is None and node.op_type == "QuantizeLinear":
            yield f"`{node.name}` has no zero point, which makes it uint8"
        elif zero is not None and (zero.dtype != np.int8 or zero.any()):
            yield f"the zero point of `{node.name}` is {zero.dtype} {np.unique(zero)[:3].tolist()} instead of int8 0"

    def _scale(self, node: onnx.NodeProto) -> Iterator[str]:
        scale = self.known.get(node.input[1])
        if scale is None:
            yield f"the scale of `{node.name}` is computed in the graph"
            return
        if not (np.isfinite(scale) & (scale > 0)).all():
            yield f"the scale `{node.input[1]}` is not finite and above 0 in {scale.dtype}"
        if not scale.ndim:
            return
        weight = self._weight(node)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if weight is None:
            yield f"`{node.name}` has {scale.size} scales for a tensor of activations"
        elif scale.shape != weight.shape[axis : axis + 1]:
            yield f"`{node.name}` has scales of shape {scale.shape} for axis {axis} of a weight of shape {weight.shape}"

    def _weight(self, node: onnx.NodeProto) -> np.ndarray | None:
        """The constant that a node quantises, or that was quantised before it."""
        maker = self.makers.get(node.input[0])
        before = maker.input[0] if maker is not None and maker.op_type == "QuantizeLinear" else node.input[0]
        return self.known.get(before)

    def _partner(self, node: onnx.NodeProto) -> Iterator[str]:
        scale = self.known.get(node.input[1])
        following = self.users.get(node.output[0], [])
        if not following or any(
            user.op_type != "DequantizeLinear"
            or scale is None
            or not np.array_equal(self.known.get(user.input[1], np.nan), scale)
            for user in following
        ):
            yield f"`{node.output[0]}` is quantised and not dequantised with the same scale"

"""A float32 ONNX graph computed in float16 or bfloat16, Q/DQ pairs and their scales included."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ConversionError
from exporters.onnx_graph import constants, opset_of, subgraphs

_FLOAT = TensorProto.FLOAT
# (2 - 2^-10) 2^15 and (2 - 2^-7) 2^127
_LARGEST = {TensorProto.FLOAT16: 65504.0, TensorProto.BFLOAT16: (2 - 2**-7) * 2.0**127}
_MASK = 0.99 * float(np.finfo(np.float32).max)
# Operators that take the type of their output from an attribute, and the attribute.
_TYPED_BY = {
    "Cast": "to",
    "EyeLike": "dtype",
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniformLike": "dtype",
}
# QuantizeLinear and DequantizeLinear take scales of float16 from this operator set on.
FIRST_HALF_SCALES = 19


def narrowed(model: onnx.ModelProto, kind: int = TensorProto.FLOAT16) -> onnx.ModelProto:
    """The same graph in a narrower type between inputs and outputs of the types that it has.

    What an operator's definition does not have in that type, such as the scales of a ``Resize``, stays float32, with
    casts around it. The largest float32 and its negative, by which networks mask, become the largest of the type.

    Args:
        model: The graph in float32; it is left as it is.
        kind: ``TensorProto.FLOAT16`` or ``TensorProto.BFLOAT16``.

    Returns:
        The graph, its nodes in order.

    Raises:
        ConversionError: If the graph has Q/DQ pairs and an operator set below 19, control flow, or a constant that
            is too large for the type.
    """
    opset = opset_of(model)
    if opset < FIRST_HALF_SCALES and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ConversionError(
            f"`opset` must be at least {FIRST_HALF_SCALES} for narrow types with Q/DQ pairs, whose scales are float32 "
            f"in earlier operator sets, got {opset}; raise it, or keep float32 between the quantised layers."
        )
    caster = _Caster(model, kind)
    for node in model.graph.node:
        if next(subgraphs(node), None) is not None:
            raise ConversionError(f"the graph must have no control flow to be cast, got {node.op_type}.")
        caster.add(node)
    return caster.finish()


@dataclass(slots=True)
class _Caster:
    model: onnx.ModelProto
    kind: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, TensorProto] = field(default_factory=dict)
    floats: set[str] = field(init=False)
    known: dict[str, TensorProto] = field(init=False)
    # The value that holds a float in the narrow type, or in float32, by its name in the graph that was given.
    narrow: dict[str, str] = field(default_factory=dict)
    full: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        typed = (*graph.input, *graph.output, *graph.value_info)
        self.known = constants(self.model)
        self.floats = {value.name for value in typed if value.type.tensor_type.elem_type == _FLOAT}
        self.floats |= {name for name, tensor in self.known.items() if tensor.data_type == _FLOAT}
        self.full = {value.name: value.name for value in graph.input if value.name in self.floats}

    @property
    def _suffix(self) -> str:
        return str(helper.tensor_dtype_to_np_dtype(self.kind).name)

    @property
    def _text(self) -> str:
        return f"tensor({self._suffix})"

    def add(self, node: onnx.NodeProto) -> None:
        """Take over a node, with its floats in the narrow type where its definition has that."""
        if node.output[0] in self.known:
            return
        schema = onnx.defs.get_schema(node.op_type, opset_of(self.model), node.domain)
        allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        bound: dict[str, bool] = {}
        for index, name in enumerate(node.input):
            if name in self.floats:
                parameter = _formal(schema.inputs, index)
                bound[parameter] = self._text in allowed.get(parameter, [parameter])
                copied.input[index] = self._as_narrow(name) if bound[parameter] else self._as_full(name)
            elif name in self.known:
                self.weights[name] = self.known[name]
        retargeted = self._retarget(copied)
        for index, name in enumerate(node.output):
            if name in self.floats:
                parameter = _formal(schema.outputs, index)
                narrow = bound.get(parameter, retargeted or self._text in allowed.get(parameter, [parameter]))
                copied.output[index] = f"{name}_{self._suffix}" if narrow else name
                (self.narrow if narrow else self.full)[name] = copied.output[index]
        self.nodes.append(copied)

    def finish(self) -> onnx.ModelProto:
        """The graph of the nodes that were taken over."""
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        for value in self.model.graph.output:
            if value.name in self.floats:
                self._as_full(value.name)
        graph = result.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.weights.values())
        return result

    def _as_narrow(self, name: str) -> str:
        if name not in self.narrow:
            self.narrow[name] = f"{name}_{self._suffix}"
            if name in self.known:
                self.weights[self.narrow[name]] = self._tensor(self.known[name], self.narrow[name])
            else:
                self._cast(self.full[name], self.narrow[name], self.kind)
        return self.narrow[name]

    def _as_full(self, name: str) -> str:
        if name not in self.full:
            self.full[name] = name
            if name in self.known:
                self.weights[name] = self.known[name]
            else:
                self._cast(self.narrow[name], name, _FLOAT)
        return self.full[name]

    def _retarget(self, node: onnx.NodeProto) -> bool:
        """Turn a float32 that a node's attributes ask for into the narrow type; whether there was one."""
        found = False
        for attribute in node.attribute:
            if attribute.name == _TYPED_BY.get(node.op_type) and attribute.i == _FLOAT:
                attribute.i = self.kind
                found = True
            elif node.op_type == "ConstantOfShape" and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(self._tensor(attribute.t, attribute.t.name))
                found = True
        return found

    def _tensor(self, tensor: TensorProto, name: str) -> TensorProto:
        values = numpy_helper.to_array(tensor)
        masks = np.isfinite(values) & (np.abs(values) > _MASK)
        values = np.where(masks, np.copysign(_LARGEST[self.kind], values), values)
        with np.errstate(over="ignore"):
            cast = values.astype(helper.tensor_dtype_to_np_dtype(self.kind))
        lost = np.isfinite(values) & ~np.isfinite(cast.astype(np.float32))
        if lost.any():
            raise ConversionError(
                f"every constant must fit into {cast.dtype.name}, got {values[lost].ravel()[0]:g} in `{tensor.name}`; "
                f"keep float32, or scale it."
            )
        return numpy_helper.from_array(cast, name)

    def _cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind))


def _formal(formals: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    # The last formal parameter of an operator with any number of values stands for all that follow.
    return str(formals[min(index, len(formals) - 1)].type_str)

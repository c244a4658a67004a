"""Quantised weights of an ONNX graph stored as the integers that they are."""

import numpy as np
import onnx

from exporters.onnx_graph import constants

_NARROW = {onnx.TensorProto.INT8: np.int8, onnx.TensorProto.UINT8: np.uint8}


def store_as_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace weights that the graph quantises when it runs by the integers that come out.

    A network after quantisation-aware training is captured with its weights in floating point, QuantizeLinear, a Clip
    to the symmetric range and DequantizeLinear. Stored as integers they take a quarter of the bytes, and runtimes
    recognise them. A Clip of an activation to the whole range of its type does nothing and hides the pattern: it goes.

    Args:
        model: The graph; it is changed in place.

    Returns:
        The graph.
    """
    known = constants(model)
    removed: list[onnx.NodeProto] = []
    aliases: dict[str, str] = {}
    for node in model.graph.node:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        if node.op_type == "QuantizeLinear" and node.input[0] in known:
            integers = _quantize(node, known)
        elif node.op_type == "Clip" and node.input[0] in known and known[node.input[0]].data_type in _NARROW:
            integers = _clip(node, known)
        elif node.op_type == "Clip" and _does_nothing(node, model, known):
            aliases[node.output[0]] = node.input[0]
            removed.append(node)
            continue
        else:
            continue
        known[node.output[0]] = onnx.numpy_helper.from_array(integers, node.output[0])
        removed.append(node)
    for node in removed:
        model.graph.node.remove(node)
    _keep_used(model, known)
    return model


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def _quantize(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> np.ndarray:
    weight, scale = _array(known[node.input[0]]), _array(known[node.input[1]])
    zero = _array(known[node.input[2]]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.uint8)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1) % weight.ndim
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)] if scale.ndim else []
    limits = np.iinfo(zero.dtype)
    steps = np.rint(weight / scale.reshape(shape)) + zero.astype(np.int32).reshape(shape if zero.ndim else [])
    return np.asarray(steps.clip(limits.min, limits.max).astype(zero.dtype))


def _clip(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> np.ndarray:
    low, high = (_array(known[name]) if name else None for name in (*node.input[1:], "", "")[:2])
    return np.asarray(np.clip(_array(known[node.input[0]]), low, high))


def _does_nothing(node: onnx.NodeProto, model: onnx.ModelProto, known: dict[str, onnx.TensorProto]) -> bool:
    made_by = next((other for other in model.graph.node if node.input[0] in other.output), None)
    if made_by is None or made_by.op_type != "QuantizeLinear":
        return False
    low, high = (_array(known[name]) if name in known else None for name in (*node.input[1:], "", "")[:2])
    return all(
        bound is None or bound == limit
        for bound, limit in (
            (low, np.iinfo(low.dtype).min if low is not None else 0),
            (high, np.iinfo(high.dtype).max if high is not None else 0),
        )
    )


def _keep_used(model: onnx.ModelProto, known: dict[str, onnx.TensorProto]) -> None:
    used = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
    stored = {tensor.name for tensor in model.graph.initializer}
    constant = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept += [tensor for name, tensor in known.items() if name in used and name not in stored | constant]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    values = [value for value in model.graph.value_info if value.name not in known]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)

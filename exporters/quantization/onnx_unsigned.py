"""Activations of a quantised ONNX graph as unsigned integers, which ONNX Runtime computes with on a CPU."""

import numpy as np
import onnx

from exporters.onnx_graph import constants


def make_activations_unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store activations as uint8 where the graph stores them as int8; the numbers that they stand for stay.

    ONNX Runtime does so by itself, but not for a value that several operators read, and then computes them in float32.

    Args:
        model: The graph, with QuantizeLinear and DequantizeLinear in pairs; it is changed in place.

    Returns:
        The graph.
    """
    known = constants(model)
    signed: set[str] = set()
    for node in model.graph.node:
        is_pair = node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and node.input[0] in signed)
        if not is_pair or len(node.input) < 3 or known[node.input[2]].data_type != onnx.TensorProto.INT8:
            continue
        zero_point = np.asarray(onnx.numpy_helper.to_array(known[node.input[2]])).astype(np.int16) + 128
        name = f"{node.input[2]}_unsigned"
        if name not in known:
            known[name] = onnx.numpy_helper.from_array(zero_point.astype(np.uint8), name)
            model.graph.initializer.append(known[name])
        node.input[2] = name
        if node.op_type == "QuantizeLinear":
            signed.add(node.output[0])
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    values = [value for value in model.graph.value_info if value.name not in signed]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)
    return model

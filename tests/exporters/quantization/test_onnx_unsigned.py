"""int8 activations become uint8, and stand for the same numbers."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from exporters.quantization.onnx_unsigned import make_activations_unsigned


def shared_value():
    """One rounded value that two branches read, and a weight that stays signed."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["left"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["right"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "weight_zero"], ["factor"]),
        helper.make_node("Mul", ["left", "factor"], ["product"]),
        helper.make_node("Add", ["product", "right"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.05), "scale"),
        numpy_helper.from_array(np.int8(-100), "zero"),
        numpy_helper.from_array(np.int8(0), "weight_zero"),
        numpy_helper.from_array(np.array([-100, 3, 127], np.int8), "weight"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "shared", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_the_numbers_stay_and_the_types_change_of_activations_alone():
    x = np.array([[-9.0, -1.4, 0.0], [0.03, 4.0, 99.0]], np.float32)
    expected = run(shared_value(), x)

    model = make_activations_unsigned(shared_value())

    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, x), expected)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zero_points = [stored[node.input[2]] for node in model.graph.node if len(node.input) == 3]
    assert [zero.dtype for zero in zero_points] == [np.uint8] * 3 + [np.int8]
    assert [int(zero) for zero in zero_points] == [28, 28, 28, 0]
    assert "zero" not in stored


def test_a_graph_that_is_unsigned_already_is_left_as_it_is():
    model = make_activations_unsigned(shared_value())
    before = model.SerializeToString()
    assert make_activations_unsigned(model).SerializeToString() == before

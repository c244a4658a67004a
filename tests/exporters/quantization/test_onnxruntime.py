import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ConversionError, InputError
from exporters.onnx_graph import check_model, constants
from exporters.quantization.onnxruntime import quantize_graph

WEIGHT = np.array([[1.0, -20.0], [0.5, 10.0], [-2.0, 5.0]], np.float32)


@pytest.fixture
def linear():
    """``y = x @ WEIGHT + bias``, named so that its parts can be found again."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 3), ("y", 2))
    ]
    initializers = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array([1.0, -1.0], np.float32), "bias"),
    ]
    node = helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], name="layer")
    graph = helper.make_graph([node], "g", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"labels": "a,b"})
    return model


def batches(*rows):
    return [{"x": np.array([row], np.float32)} for row in rows]


def pairs(model):
    """Type, scale and zero point of the input of every ``DequantizeLinear``, by the name of what it gives."""
    known = {name: numpy_helper.to_array(tensor) for name, tensor in constants(model).items()}
    return {
        node.output[0]: (known[node.input[2]].dtype, known[node.input[1]], known[node.input[2]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }


def test_symmetric_has_zero_points_of_zero_and_no_quantised_bias(linear):
    quantized = quantize_graph(linear, batches([1, 2, 3], [-8, 0, 6]), operators=["Gemm"], symmetric=True)
    check_model(quantized)
    found = pairs(quantized)
    assert {(str(dtype), int(np.abs(zero).max())) for dtype, _, zero in found.values()} == {("int8", 0)}
    (activation,) = (scale for name, (_, scale, _) in found.items() if name.startswith("x_"))
    # The largest magnitude seen is 8, and int8 reaches 127 steps; weights have a scale per column.
    np.testing.assert_allclose(activation, 8 / 127, rtol=1e-6)
    (weight,) = (scale for name, (_, scale, _) in found.items() if name.startswith("weight"))
    np.testing.assert_allclose(weight, [2 / 127, 20 / 127], rtol=1e-6)
    assert not any(name.startswith("bias") for name in found)


def test_asymmetric_uses_the_whole_range_of_uint8(linear):
    quantized = quantize_graph(linear, batches([1, 2, 3], [-1, 0, 4]), operators=["Gemm"], symmetric=False)
    found = pairs(quantized)
    (activation,) = (entry for name, entry in found.items() if name.startswith("x_"))
    # From -1 to 4 in 255 steps; zero is 51 steps above the smallest.
    assert activation[0] == np.uint8
    np.testing.assert_allclose(activation[1], 5 / 255, rtol=1e-6)
    assert activation[2] == 51
    assert any(name.startswith("bias") and dtype == np.int32 for name, (dtype, _, _) in found.items())


def test_percentiles_cut_rare_values_off(linear):
    generator = np.random.default_rng(0)
    data = [{"x": generator.uniform(-1, 1, (64, 3)).astype(np.float32)} for _ in range(200)]
    data[7]["x"][0, 0] = 100.0
    scales = []
    for ranges in ("minmax", "percentile"):
        found = pairs(quantize_graph(linear, data, operators=["Gemm"], ranges=ranges, symmetric=True))
        scales += [float(scale) for name, (_, scale, _) in found.items() if name.startswith("x_")]
    assert scales[0] == pytest.approx(100 / 127)
    assert scales[1] < 10 / 127


def test_leaves_the_graph_it_was_given_and_its_metadata_alone(linear, capfd):
    before = linear.SerializeToString()
    quantized = quantize_graph(linear, batches([1, 2, 3]), operators=["Gemm"], symmetric=True)
    assert linear.SerializeToString() == before
    assert {entry.key: entry.value for entry in quantized.metadata_props} == {"labels": "a,b"}
    assert capfd.readouterr() == ("", "")


def test_excluded_nodes_stay_in_float(linear):
    quantized = quantize_graph(linear, batches([1, 2, 3]), operators=["Gemm"], exclude=["layer"], symmetric=True)
    assert pairs(quantized) == {}


def test_says_why_a_graph_cannot_be_quantised(linear):
    with pytest.raises(ConversionError, match=r"with Gemm and minmax ranges, but it raised .*x"):
        quantize_graph(linear, [{"wrong": np.zeros((1, 3), np.float32)}], operators=["Gemm"], symmetric=True)


def test_needs_data(linear):
    with pytest.raises(InputError, match=r"at least one batch, got none"):
        quantize_graph(linear, [], operators=["Gemm"], symmetric=True)

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ConversionError
from exporters.quantization.onnxruntime import quantize_graph
from exporters.tensorrt.lint import lint_graph

SCALE, ZERO = np.float32(0.5).reshape(()), np.int8(0).reshape(())
WEIGHT = np.array([[1.0, -2.0], [3.0, 4.0]], np.float32)


def quantise(source, target, *constants):
    return helper.make_node("QuantizeLinear", [source, *constants], [target], name=target)


def dequantise(source, target, *constants, **attributes):
    return helper.make_node("DequantizeLinear", [source, *constants], [target], name=target, **attributes)


def model_of(nodes, *, opset=20, **constants):
    """A graph from ``x`` to ``y``, two values each, with these arrays by name."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("x", "y")]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], initializers), opset_imports=opsets, ir_version=10
    )


def product(*, weight_axis=1, weight_scales=(0.1, 0.2)):
    """Both operands of a product quantised as TensorRT wants them."""
    nodes = [
        dequantise("w", "wd", "ws", "wz", axis=weight_axis),
        quantise("x", "q", "s", "z"),
        dequantise("q", "d", "s", "z"),
        helper.make_node("MatMul", ["d", "wd"], ["y"], name="product"),
    ]
    scales = np.array(weight_scales, np.float32)
    constants = {"w": WEIGHT.astype(np.int8), "ws": scales, "wz": np.zeros(len(scales), np.int8), "s": SCALE, "z": ZERO}
    return nodes, constants


def test_takes_what_the_quantiser_makes():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer")]
    model = model_of(nodes, w=WEIGHT, b=np.ones(2, np.float32))
    batches = [{"x": np.array([[1, 2]], np.float32)}]
    lint_graph(quantize_graph(model, batches, operators=["Gemm"], symmetric=True))
    with pytest.raises(ConversionError, match=r"bias in int32, which has to stay.*uint8"):
        lint_graph(quantize_graph(model, batches, operators=["Gemm"], symmetric=False))


def test_puts_nodes_into_order():
    nodes, constants = product()
    model = model_of(nodes[::-1], **constants)
    lint_graph(model)
    assert [node.op_type for node in model.graph.node][-1] == "MatMul"


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ({"z": np.int8(3).reshape(())}, r"zero point of `q` is int8 \[3\] instead of int8 0"),
        ({"z": np.uint8(0).reshape(())}, r"zero point of `q` is uint8 \[0\]"),
        ({"s": np.float32(0).reshape(())}, r"scale `s` is not finite and above 0 in float32"),
        ({"s": np.float32("inf").reshape(())}, r"scale `s` is not finite"),
        ({"s": np.float32([0.5, 0.5]), "z": np.zeros(2, np.int8)}, r"`q` has 2 scales for a tensor of activations"),
        ({"ws": np.float32([1, 1, 1]), "wz": np.zeros(3, np.int8)}, r"scales of shape \(3,\) for axis 1 of a weight"),
    ],
)
def test_names_what_the_parser_would_stumble_over(change, breach):
    nodes, constants = product()
    with pytest.raises(ConversionError, match=rf"TensorRT takes, but .*{breach}"):
        lint_graph(model_of(nodes, **{**constants, **change}))


def test_a_missing_zero_point_means_uint8():
    nodes = [quantise("x", "q", "s"), dequantise("q", "y", "s")]
    with pytest.raises(ConversionError, match=r"`q` has no zero point, which makes it uint8"):
        lint_graph(model_of(nodes, s=SCALE))


def test_pairs_must_agree():
    nodes = [quantise("x", "q", "s", "z"), dequantise("q", "y", "t", "z")]
    with pytest.raises(ConversionError, match=r"`q` is quantised and not dequantised with the same scale"):
        lint_graph(model_of(nodes, s=SCALE, t=SCALE * 2, z=ZERO))


def test_a_scale_must_be_known():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], keepdims=0),
        quantise("x", "q", "s", "z"),
        dequantise("q", "y", "s", "z"),
    ]
    with pytest.raises(ConversionError, match=r"scale of `q` is computed in the graph.*same scale.*scale of `y`"):
        lint_graph(model_of(nodes, z=ZERO))


def test_a_weight_that_the_graph_quantises_may_have_a_scale_per_channel():
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=1, name="wq"),
        dequantise("wq", "wd", "ws", "wz", axis=1),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    lint_graph(model_of(nodes, w=WEIGHT, ws=np.float32([0.1, 0.2]), wz=np.zeros(2, np.int8)))


def test_operators_of_other_runtimes_are_named():
    nodes = [helper.make_node("Gelu", ["x"], ["y"], name="activation", domain="com.microsoft")]
    with pytest.raises(ConversionError, match=r"`activation` is com.microsoft.Gelu, which only another runtime has"):
        lint_graph(model_of(nodes))


def test_shows_five_breaches_and_counts_the_others():
    nodes = []
    for index in range(7):
        nodes.append(quantise("x" if not index else f"d{index - 1}", f"q{index}", "s"))
        nodes.append(dequantise(f"q{index}", "y" if index == 6 else f"d{index}", "s"))
    with pytest.raises(ConversionError, match=r"`q4` has no zero point, .*; and 2 more\. Quantise with"):
        lint_graph(model_of(nodes, s=SCALE))


def test_a_graph_that_is_not_valid_is_refused_first():
    with pytest.raises(ConversionError, match=r"must be valid ONNX.*NoSuchOperator"):
        lint_graph(model_of([helper.make_node("NoSuchOperator", ["x"], ["y"])]))

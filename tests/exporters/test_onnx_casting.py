import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.errors import ConversionError
from exporters.onnx_casting import narrowed
from exporters.onnx_graph import check_model

KINDS = {TensorProto.FLOAT16: 2**-11, TensorProto.BFLOAT16: 2**-8}
"""Largest relative error of one rounding."""


def model_of(nodes, shapes, initializers=(), *, opset=22):
    """A graph from ``x`` to ``y``."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in ("x", "y")]
    graph = helper.make_graph(
        nodes, "g", values[:1], values[1:], [numpy_helper.from_array(array, name) for name, array in initializers]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    check_model(model)
    return model


def run(model, array):
    return ReferenceEvaluator(model).run(None, {"x": array})[0]


def types_of(model):
    """Type of every value that a node makes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name: TensorProto.DataType.Name(value.type.tensor_type.elem_type) for value in values}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_between_input_and_output_is_narrow(kind):
    weight = np.linspace(-1, 1, 2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["b", "b"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 3, 8, 8], "y": ["batch", 2, 6, 6]}, [("w", weight)])
    before = model.SerializeToString()
    cast = narrowed(model, kind)
    check_model(cast)
    assert model.SerializeToString() == before
    assert [node.op_type for node in cast.graph.node] == ["Cast", "Conv", "Relu", "Add", "Cast"]
    assert [tensor.data_type for tensor in cast.graph.initializer] == [kind]
    assert set(types_of(cast).values()) == {TensorProto.DataType.Name(kind), "FLOAT"}
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = run(model, x)
    # Sums of 27 products, each rounded once, and the sum itself.
    np.testing.assert_allclose(run(cast, x), expected, rtol=0, atol=30 * KINDS[kind] * np.abs(expected).max())


def test_what_an_operator_has_in_float32_only_stays_so():
    scales = np.array([1, 1, 2, 2], np.float32)
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")]
    model = model_of(nodes, {"x": [1, 1, 2, 2], "y": [1, 1, 4, 4]}, [("s", scales)])
    cast = narrowed(model)
    check_model(cast)
    assert {tensor.name: tensor.data_type for tensor in cast.graph.initializer} == {"s": TensorProto.FLOAT}
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(run(cast, x), run(model, x))


def test_operators_without_the_type_are_computed_in_float32_between_casts():
    # Range has no float16.
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["n"], keepdims=0),
        helper.make_node("Range", ["zero", "n", "one"], ["r"]),
        helper.make_node("Add", ["r", "one"], ["y"]),
    ]
    constants = [("zero", np.float32(0).reshape(())), ("one", np.float32(1).reshape(()))]
    model = model_of(nodes, {"x": [2], "y": [None]}, constants, opset=20)
    cast = narrowed(model)
    check_model(cast)
    assert types_of(cast)["r"] == "FLOAT"
    assert types_of(cast)["r_float16"] == "FLOAT16"
    x = np.array([1, 3], np.float32)
    # 0 to 3, and 1 more
    np.testing.assert_array_equal(run(cast, x), [1, 2, 3, 4])


def test_types_asked_for_by_attributes_follow():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.FLOAT),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["filled"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])
        ),
        helper.make_node("ReduceSum", ["sizes"], ["total"], keepdims=0),
        helper.make_node("Mul", ["filled", "total"], ["scaled"]),
        helper.make_node("Add", ["scaled", "x"], ["y"]),
    ]
    model = model_of(nodes, {"x": [2, 3], "y": [2, 3]})
    cast = narrowed(model)
    check_model(cast)
    assert {name for name, kind in types_of(cast).items() if kind == "FLOAT"} == {"y"}
    x = np.zeros((2, 3), np.float32)
    # sizes 2 and 3 in all 5, halved
    np.testing.assert_array_equal(run(cast, x), np.full((2, 3), 2.5))


def quantised(opset):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    constants = [("s", np.float32(0.25).reshape(())), ("z", np.int8(0).reshape(()))]
    return model_of(nodes, {"x": [4], "y": [4]}, constants, opset=opset)


def test_scales_become_narrow():
    model = quantised(19)
    cast = narrowed(model)
    check_model(cast)
    assert {tensor.name: tensor.data_type for tensor in cast.graph.initializer} == {
        "s_float16": TensorProto.FLOAT16,
        "z": TensorProto.INT8,
    }
    session = onnxruntime.InferenceSession(cast.SerializeToString())
    # Steps of a quarter, and nothing below 0.
    found = session.run(None, {"x": np.array([-1.0, 0.3, 0.4, 2.0], np.float32)})[0]
    np.testing.assert_array_equal(found, [0, 0.25, 0.5, 2.0])


def test_scales_of_old_operator_sets_are_refused():
    with pytest.raises(ConversionError, match=r"`opset` must be at least 19 for narrow types with Q/DQ pairs.*got 13"):
        narrowed(quantised(13))


def shifted_by(value):
    nodes = [helper.make_node("Add", ["x", "shift"], ["y"])]
    return model_of(nodes, {"x": [1], "y": [1]}, [("shift", np.float32([value]))])


def test_a_constant_that_does_not_fit_is_named():
    with pytest.raises(ConversionError, match=r"fit into float16, got 70000 in `shift`"):
        narrowed(shifted_by(7e4))
    check_model(narrowed(shifted_by(7e4), TensorProto.BFLOAT16))


@pytest.mark.parametrize(("kind", "largest"), [(TensorProto.FLOAT16, 65504.0), (TensorProto.BFLOAT16, 3.3895313e38)])
def test_the_value_that_masks_becomes_the_largest_there_is(kind, largest):
    cast = narrowed(shifted_by(np.finfo(np.float32).min), kind)
    np.testing.assert_allclose(run(cast, np.float32([0])), [-largest], rtol=1e-6)


def test_infinite_constants_stay_infinite():
    np.testing.assert_array_equal(run(narrowed(shifted_by(-np.inf)), np.float32([1])), [-np.inf])


def test_an_output_that_is_used_inside_is_cast_once():
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Neg", ["y"], ["unused"]),
    ]
    model = model_of(nodes, {"x": [2], "y": [2]})
    cast = narrowed(model)
    check_model(cast)
    assert [node.op_type for node in cast.graph.node] == ["Cast", "Relu", "Neg", "Cast"]


def test_control_flow_is_refused():
    branches = [
        helper.make_graph(
            [helper.make_node("Neg", ["x"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])],
        )
        for name in ("a", "b")
    ]
    condition = ("c", np.array([True]).reshape(()))
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    with pytest.raises(ConversionError, match=r"no control flow to be cast, got If"):
        narrowed(model_of([node], {"x": [2], "y": [2]}, [condition]))

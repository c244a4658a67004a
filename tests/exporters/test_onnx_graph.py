import onnx
import pytest
from onnx import TensorProto, helper

from exporters.errors import ConversionError
from exporters.onnx_graph import check_model, constants, opset_of, sort_nodes


def model_of(nodes, initializers=(), *, opset=20):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializer=initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def test_sorts_nodes_that_were_appended():
    nodes = [
        helper.make_node("Neg", ["b"], ["y"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Exp", ["x"], ["a"]),
    ]
    model = model_of(nodes)
    with pytest.raises(ConversionError, match=r"valid ONNX, but the checker says: .*sorted"):
        check_model(model)
    sort_nodes(model.graph)
    check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Exp", "Relu", "Neg"]


def test_sorts_by_what_branches_read_from_outside():
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["a"], [f"{kind}_out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, [2])],
        )
        for kind in ("Neg", "Relu")
    ]
    choice = helper.make_node("If", ["condition"], ["y"], then_branch=branches[0], else_branch=branches[1])
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    model = model_of([choice, helper.make_node("Exp", ["x"], ["a"])], [condition])
    sort_nodes(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Exp", "If"]
    check_model(model)


def test_a_cycle_is_named():
    nodes = [helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    with pytest.raises(ConversionError, match=r"no cycle, but `a` depends on itself"):
        sort_nodes(model_of(nodes).graph)


def test_an_operator_without_the_graphs_type_is_refused():
    # Conv has had bfloat16 since opset 22.
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [1, 1, 1, 1], [1.0])
    values = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [1, 1, 4, 4]) for name in ("x", "y")]
    for opset, valid in ((21, False), (22, True)):
        graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", *([v] for v in values), [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        if valid:
            check_model(model)
        else:
            with pytest.raises(ConversionError, match="bfloat16"):
                check_model(model)


def test_finds_constants_of_both_kinds():
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0]) for name in ("a", "inner")]
    model = model_of(
        [
            helper.make_node("Constant", [], ["b"], value=tensors[1]),
            helper.make_node("Add", ["x", "a"], ["t"]),
            helper.make_node("Add", ["t", "b"], ["y"]),
        ],
        tensors[:1],
        opset=19,
    )
    assert set(constants(model)) == {"a", "b"}
    assert opset_of(model) == 19
    onnx.checker.check_model(model)

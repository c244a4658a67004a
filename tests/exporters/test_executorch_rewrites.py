"""Rewritten programs compute the same in operators that XNNPACK has."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from exporters.executorch.rewrites import rewrite_for_kernels, rewrite_for_xnnpack


class Call(nn.Module):
    """A function as a network."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def targets(program):
    return {str(node.target).removeprefix("aten.") for node in program.graph.nodes if node.op == "call_function"}


WEIGHT, BIAS = torch.linspace(0.5, 1.5, 6), torch.linspace(-0.5, 0.5, 6)
ROWS = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
NOTHING_TO_SEE = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4, [True] * 4])
CASES = {
    "layer norm": (lambda x: F.layer_norm(x, (6,), WEIGHT, BIAS), "layer_norm"),
    "layer norm of two axes": (lambda x: F.layer_norm(x, (4, 6)), "layer_norm"),
    "group norm": (lambda x: F.group_norm(x.permute(0, 3, 1, 2), 3, WEIGHT, BIAS), "group_norm"),
    "attention": (lambda x: F.scaled_dot_product_attention(x, 2 * x, x + 1), "scaled_dot_product"),
    "attention with a scale": (lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3), "scaled_dot_product"),
    "attention with a mask": (lambda x: F.scaled_dot_product_attention(x, x, x, NOTHING_TO_SEE), "scaled_dot_product"),
    "attention with a bias": (
        lambda x: F.scaled_dot_product_attention(x, x, x, BIAS[:4].expand(4, 4)),
        "scaled_dot_product",
    ),
    "approximate GELU": (lambda x: F.gelu(x, approximate="tanh") * 2, "gelu"),
    "matmul": (lambda x: x @ x.transpose(-2, -1), "matmul"),
    "select": (lambda x: x[:, -1] * 2, "select"),
    "unbind": (lambda x: torch.stack(x.unbind(1)[::-1]), "unbind"),
    "roll": (lambda x: x.roll((1, -2), (1, 2)), "roll"),
    "repeat of axes of length one": (lambda x: x[:, :1].repeat(3, 1, 4, 1, 1) * 2, "repeat"),
    "columns of windows": (lambda x: F.fold(x.reshape(2, 12, 6), (3, 4), (2, 2)), "col2im"),
    "slice of everything": (lambda x: x[:, :3] * 2, "alias"),
    "unsqueeze": (lambda x: x.unsqueeze(-2) * 2, "unsqueeze"),
    "mean of tokens": (lambda x: x.flatten(1, 2).mean(1), "mean"),
    "mean of a map with channels last": (lambda x: x.mean((1, 2)), "mean"),
    "mean of the last axis": (lambda x: x.mean(-1, keepdim=True), "mean"),
}


CLAMPS = {
    "hardtanh, relu": (lambda x: F.relu(F.hardtanh(x, -0.2, 0.2)), (0.0, 0.2)),
    "relu, relu6": (lambda x: F.relu6(F.relu(x)), (0.0, 6.0)),
    "clamp below, hardtanh, relu": (lambda x: F.relu(F.hardtanh(x.clamp(min=-0.5), -1.0, 0.7)), (0.0, 0.7)),
    "apart": (lambda x: F.hardtanh(x, -2.0, -0.5).clamp(0.3, 0.9), (0.3, 0.3)),
    "relu, relu": (lambda x: F.relu(F.relu(x)), (0.0, None)),
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps_in_a_row_are_one(name):
    function, ends = CLAMPS[name]
    program = rewrite_for_xnnpack(torch.export.export(Call(function), (ROWS,)))
    (clamp,) = (node for node in program.graph.nodes if node.op == "call_function")
    assert tuple(clamp.args[1:]) == ends
    torch.testing.assert_close(program.module()(ROWS), function(ROWS), rtol=0, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_computes_the_same_without_the_operator(name):
    function, operator = CASES[name]
    program = torch.export.export(Call(function), (ROWS,))
    assert any(target.startswith(operator) for target in targets(program))
    rewritten = rewrite_for_xnnpack(program)
    assert not [target for target in targets(rewritten) if target.startswith(operator)]
    torch.testing.assert_close(rewritten.module()(ROWS), function(ROWS), rtol=1e-5, atol=1e-6)


def test_a_mean_over_a_map_becomes_the_pooling_that_xnnpack_has():
    program = rewrite_for_xnnpack(torch.export.export(Call(lambda x: x.mean((2, 3))), (ROWS,)))
    (mean,) = program.graph.find_nodes(op="call_function", target=torch.ops.aten.mean.dim)
    assert mean.args[2] is True
    torch.testing.assert_close(program.module()(ROWS), ROWS.mean((2, 3)))


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True), "scaled_dot_product_attention.default"),
        (lambda x: F.layer_norm(x.half(), (6,)), "layer_norm.default"),
        (lambda x: x.roll(1), "roll.default"),
        (lambda x: x.mean((0, 2)), "mean.dim"),
    ],
)
def test_what_has_no_rule_stays(function, operator):
    assert operator in targets(rewrite_for_xnnpack(torch.export.export(Call(function), (ROWS,))))


def test_normalisation_stays_for_kernels_that_have_it():
    program = torch.export.export(Call(CASES["layer norm"][0]), (ROWS,))
    assert "layer_norm.default" in targets(rewrite_for_kernels(program))


def test_one_unknown_size_of_a_reshape_is_inferred():
    program = torch.export.export(
        Call(lambda x: x.reshape(x.shape[0], 3, 24).flatten(1)), (ROWS,), dynamic_shapes=(({0: Dim("batch", max=9)},),)
    )
    rewritten = rewrite_for_xnnpack(program)
    assert "sym_size.int" not in targets(rewritten)
    images = torch.randn(7, 3, 4, 6)
    torch.testing.assert_close(rewritten.module()(images), images.reshape(7, 72))

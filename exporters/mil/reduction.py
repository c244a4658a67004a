"""Reductions over axes, sums along an axis, sorting."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def run(inputs: Arguments) -> Tensor:
        x = inputs.tensor("x")
        axes = list(range(x.ndim)) if inputs.optional("axes") is None else inputs.integers("axes")
        return function(x, axes, inputs.flag("keep_dims"))

    return run


def _reduce_prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _position(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"), inputs.integer("axis"), keepdim=inputs.flag("keep_dims"))


def _cumsum(inputs: Arguments) -> Tensor:
    x, axis = inputs.tensor("x"), inputs.integer("axis")
    if inputs.flag("reverse"):
        x = x.flip(axis)
    total = x.cumsum(axis)
    if inputs.flag("exclusive"):
        total = total - x
    return total.flip(axis) if inputs.flag("reverse") else total


def _topk(inputs: Arguments) -> list[Tensor]:
    x, axis, count = inputs.tensor("x"), inputs.integer("axis"), inputs.integer("k")
    values, indices = torch.sort(x, dim=axis, descending=not inputs.flag("ascending"), stable=True)
    count = x.shape[axis] if count == -1 else count
    return [values.narrow(axis, 0, count), indices.narrow(axis, 0, count)]


def _argsort(inputs: Arguments) -> Tensor:
    return torch.argsort(
        inputs.tensor("x"), dim=inputs.integer("axis"), descending=not inputs.flag("ascending"), stable=True
    )


OPERATORS: Mapping[str, Operator] = {
    "argsort": _argsort,
    "cumsum": _cumsum,
    "reduce_argmax": _position(torch.argmax),
    "reduce_argmin": _position(torch.argmin),
    "reduce_l1_norm": _reduce(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _reduce(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "reduce_log_sum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "reduce_log_sum_exp": _reduce(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_max": _reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_mean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "reduce_min": _reduce(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _reduce(_reduce_prod),
    "reduce_sum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_square": _reduce(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "topk": _topk,
}

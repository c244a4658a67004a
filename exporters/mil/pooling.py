"""Pooling over windows."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator
from exporters.mil.linear import pad_spatial, pads


def _declared(inputs: Arguments) -> list[int]:
    """Padding that the operator asks for, before and after every spatial dimension."""
    return pads(inputs, inputs.tensor("x").shape[2:], inputs.integers("kernel_sizes"), inputs.integers("strides"))


def _needed(inputs: Arguments) -> list[int]:
    """Further elements at the end of every dimension, negative to cut, so that the windows fit exactly."""
    result = []
    for axis, (size, extent, stride) in enumerate(
        zip(inputs.tensor("x").shape[2:], inputs.integers("kernel_sizes"), inputs.integers("strides"), strict=True)
    ):
        before, after = _declared(inputs)[2 * axis : 2 * axis + 2]
        steps = (size + before + after - extent) / stride
        last = math.ceil(steps) if inputs.flag("ceil_mode") else math.floor(steps)
        if inputs.flag("ceil_mode") and last * stride >= size + before and before + after > 0:
            last -= 1
        result += [0, last * stride + extent - size - before - after]
    return result


def _windows(inputs: Arguments, padded: Tensor, fill: float) -> Tensor:
    """Every window of a padded tensor, shape (N, C, *outputs, elements of the window)."""
    windows = pad_spatial(padded, _needed(inputs), fill)
    for axis, (extent, stride) in enumerate(
        zip(inputs.integers("kernel_sizes"), inputs.integers("strides"), strict=True)
    ):
        windows = windows.unfold(2 + axis, extent, stride)
    return windows.flatten(start_dim=padded.ndim)


def _max_pool(inputs: Arguments) -> Tensor:
    return _windows(inputs, pad_spatial(inputs.tensor("x"), _declared(inputs), -math.inf), -math.inf).amax(-1)


def _avg_pool(inputs: Arguments) -> Tensor:
    x, amounts = inputs.tensor("x"), _declared(inputs)
    # Padding that was asked for counts as values unless excluded; what only the rounding up adds never does.
    ones = pad_spatial(torch.ones_like(x[:1, :1]), amounts, 0.0 if inputs.flag("exclude_padding_from_average") else 1.0)
    return _windows(inputs, pad_spatial(x, amounts), 0.0).sum(-1) / _windows(inputs, ones, 0.0).sum(-1)


def _l2_pool(inputs: Arguments) -> Tensor:
    return _windows(inputs, pad_spatial(inputs.tensor("x").square(), _declared(inputs)), 0.0).sum(-1).sqrt()


OPERATORS: Mapping[str, Operator] = {"avg_pool": _avg_pool, "l2_pool": _l2_pool, "max_pool": _max_pool}

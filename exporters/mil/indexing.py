"""Slices, padding, and reading or writing at indices."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator

_REDUCTIONS = {"add": "sum", "sub": "sum", "mul": "prod", "div": "prod", "max": "amax", "min": "amin"}


def _sliced(x: Tensor, inputs: Arguments) -> Tensor:
    rank = x.ndim
    begins, ends = inputs.integers("begin"), inputs.integers("end")
    strides = [1] * rank if inputs.optional("stride") is None else inputs.integers("stride")
    masks = {
        name: [False] * rank if inputs.optional(name) is None else inputs.flags(name)
        for name in ("begin_mask", "end_mask", "squeeze_mask")
    }
    for axis in reversed(range(rank)):
        begin = None if masks["begin_mask"][axis] else begins[axis]
        if masks["squeeze_mask"][axis]:
            x = x.select(axis, begin or 0)
            continue
        end = None if masks["end_mask"][axis] else ends[axis]
        positions = range(x.shape[axis])[begin : end : strides[axis]]
        x = x.index_select(axis, torch.tensor(positions, dtype=torch.int64))
    return x


def _slice_by_size(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    for axis, (begin, size) in enumerate(zip(inputs.integers("begin"), inputs.integers("size"), strict=True)):
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _slice_update(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    return _written(x, _sliced(_positions(x), inputs), inputs.tensor("update"), "update")


def _crop(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    (top, bottom), (left, right) = inputs.integers("crop_height"), inputs.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _pad(inputs: Arguments) -> Tensor:
    x, amounts, mode = inputs.tensor("x"), inputs.integers("pad"), inputs.text("mode")
    first = x.ndim - len(amounts) // 2
    for axis, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), start=first):
        size = x.shape[axis]
        positions = torch.arange(-before, size + after)
        if mode == "reflect":
            positions = size - 1 - (size - 1 - positions.abs()).abs()
        inside = (positions >= 0) & (positions < size)
        x = x.index_select(axis, positions.clamp(0, size - 1))
        if mode == "constant":
            keep = inside.reshape([-1 if dimension == axis else 1 for dimension in range(x.ndim)])
            x = torch.where(keep, x, inputs.tensor("constant_val").to(x.dtype))
    return x


def _nonnegative(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).long()


def _gathered(x: Tensor, inputs: Arguments) -> Tensor:
    indices, axis, batch_axes = inputs.tensor("indices"), inputs.integer("axis") % max(x.ndim, 1), 0
    if inputs.optional("batch_dims") is not None:
        batch_axes = inputs.integer("batch_dims")
    return _gather(x, _nonnegative(indices, x.shape[axis]), axis, batch_axes)


def _gather(x: Tensor, indices: Tensor, axis: int, batch_axes: int) -> Tensor:
    if batch_axes:
        pairs = zip(x, indices, strict=True)
        return torch.stack([_gather(part, index, axis - 1, batch_axes - 1) for part, index in pairs])
    return x.index_select(axis, indices.flatten()).reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _gathered_along_axis(x: Tensor, inputs: Arguments) -> Tensor:
    axis = inputs.integer("axis")
    return x.gather(axis, _nonnegative(inputs.tensor("indices"), x.shape[axis]))


def _gathered_nd(x: Tensor, inputs: Arguments) -> Tensor:
    batch_axes = 0 if inputs.optional("batch_dims") is None else inputs.integer("batch_dims")
    return _gather_nd(x, inputs.tensor("indices"), batch_axes)


def _gather_nd(x: Tensor, indices: Tensor, batch_axes: int) -> Tensor:
    if batch_axes:
        return torch.stack([_gather_nd(part, index, batch_axes - 1) for part, index in zip(x, indices, strict=True)])
    return x[tuple(_nonnegative(index, x.shape[axis]) for axis, index in enumerate(indices.unbind(-1)))]


def _positions(x: Tensor) -> Tensor:
    """The place of every element in the flattened tensor: reading it by any index says where that index writes."""
    return torch.arange(x.numel()).reshape(x.shape)


def _written(x: Tensor, positions: Tensor, updates: Tensor, mode: str) -> Tensor:
    flat, places, values = x.flatten(), positions.flatten(), updates.expand(positions.shape).flatten().to(x.dtype)
    if mode == "update":
        return flat.scatter(0, places, values).reshape(x.shape)
    if mode == "sub":
        values = -values
    if mode == "div":
        values = values.reciprocal()
    return flat.scatter_reduce(0, places, values, _REDUCTIONS[mode]).reshape(x.shape)


def _scatter(read: Callable[[Tensor, Arguments], Tensor]) -> Operator:
    def run(inputs: Arguments) -> Tensor:
        data = inputs.tensor("data")
        return _written(data, read(_positions(data), inputs), inputs.tensor("updates"), inputs.text("mode"))

    return run


def _gather_operator(read: Callable[[Tensor, Arguments], Tensor]) -> Operator:
    return lambda inputs: read(inputs.tensor("x"), inputs)


OPERATORS: Mapping[str, Operator] = {
    "crop": _crop,
    "gather": _gather_operator(_gathered),
    "gather_along_axis": _gather_operator(_gathered_along_axis),
    "gather_nd": _gather_operator(_gathered_nd),
    "non_zero": lambda inputs: inputs.tensor("x").nonzero(),
    "pad": _pad,
    "scatter": _scatter(_gathered),
    "scatter_along_axis": _scatter(_gathered_along_axis),
    "scatter_nd": _scatter(_gathered_nd),
    "slice_by_index": _gather_operator(_sliced),
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
}

"""Operators that give elements another shape or order, join and part tensors, and make new ones."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _reshape(inputs: Arguments) -> Tensor:
    x, wanted = inputs.tensor("x"), inputs.integers("shape")
    # A zero stands for the size of the same dimension, counted from the last one.
    sizes = [1] * max(len(wanted) - x.ndim, 0) + list(x.shape)[max(x.ndim - len(wanted), 0) :]
    return x.reshape([size or sizes[axis] for axis, size in enumerate(wanted)])


def _reshape_like(inputs: Arguments) -> Tensor:
    shape: list[int] = []
    parts = zip(*(inputs.tensors(name) for name in ("ref_tensors", "begins", "ends", "end_masks")), strict=True)
    for reference, begin, end, to_the_end in parts:
        shape += reference.shape[int(begin) : None if bool(to_the_end) else int(end)]
    return inputs.tensor("x").reshape(shape)


def _expand_dims(inputs: Arguments) -> Tensor:
    x, axes = inputs.tensor("x"), inputs.integers("axes")
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    return x.squeeze() if inputs.optional("axes") is None else x.squeeze(tuple(inputs.integers("axes")))


def _transpose(inputs: Arguments) -> Tensor:
    return inputs.tensor("x").permute(inputs.integers("perm"))


def _flatten2d(inputs: Arguments) -> Tensor:
    x, axis = inputs.tensor("x"), inputs.integer("axis")
    return x.reshape(x.shape[:axis].numel(), -1)


def _depth_to_space(inputs: Arguments) -> Tensor:
    x, block = inputs.tensor("x"), inputs.integer("block_size")
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, block, block, channels // block**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(inputs: Arguments) -> Tensor:
    x, block = inputs.tensor("x"), inputs.integer("block_size")
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


def _space_to_batch(inputs: Arguments) -> Tensor:
    rows, columns = inputs.integers("block_shape")
    top, bottom, left, right = inputs.integers("paddings")
    x = F.pad(inputs.tensor("x"), (left, right, top, bottom))
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return parts.permute(3, 5, 0, 1, 2, 4).reshape(batch * rows * columns, channels, height // rows, width // columns)


def _batch_to_space(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    rows, columns = inputs.integers("block_shape")
    top, bottom, left, right = inputs.integers("crops")
    batch, channels, height, width = x.shape
    parts = x.reshape(rows, columns, batch // (rows * columns), channels, height, width).permute(2, 3, 4, 0, 5, 1)
    joined = parts.reshape(batch // (rows * columns), channels, height * rows, width * columns)
    return joined[..., top : joined.shape[-2] - bottom, left : joined.shape[-1] - right]


def _tile(inputs: Arguments) -> Tensor:
    return inputs.tensor("x").tile(inputs.integers("reps"))


def _reverse(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    return x.flip(list(range(x.ndim)) if inputs.optional("axes") is None else inputs.integers("axes"))


def _reverse_sequence(inputs: Arguments) -> Tensor:
    axis, batch_axis = inputs.integer("seq_axis"), inputs.integer("batch_axis")
    x = inputs.tensor("x").movedim((batch_axis, axis), (0, 1))
    rows = [
        torch.cat([row[:length].flip(0), row[length:]])
        for row, length in zip(x, inputs.integers("lengths"), strict=True)
    ]
    return torch.stack(rows).movedim((0, 1), (batch_axis, axis))


def _sliding_windows(inputs: Arguments) -> Tensor:
    x, axis = inputs.tensor("x"), inputs.integer("axis")
    axis %= x.ndim
    return x.unfold(axis, inputs.integer("size"), inputs.integer("stride")).movedim(-1, axis + 1)


def _concat(inputs: Arguments) -> Tensor:
    axis = inputs.integer("axis")
    values = [value.reshape(1) if value.ndim == 0 else value for value in inputs.tensors("values")]
    if inputs.flag("interleave"):
        axis %= values[0].ndim
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


def _stack(inputs: Arguments) -> Tensor:
    return torch.stack(inputs.tensors("values"), inputs.integer("axis"))


def _split(inputs: Arguments) -> list[Tensor]:
    x, axis = inputs.tensor("x"), inputs.integer("axis")
    if inputs.optional("split_sizes") is not None:
        return list(x.split_with_sizes(inputs.integers("split_sizes"), axis))
    return list(x.chunk(inputs.integer("num_splits"), axis))


def _shape(inputs: Arguments) -> Tensor:
    return torch.tensor(inputs.tensor("x").shape)


def _fill(inputs: Arguments) -> Tensor:
    return inputs.tensor("value").expand(inputs.integers("shape"))


def _fill_like(inputs: Arguments) -> Tensor:
    return inputs.tensor("value").expand(inputs.tensor("ref_tensor").shape)


def _range_1d(inputs: Arguments) -> Tensor:
    return torch.arange(*(inputs.tensor(name).item() for name in ("start", "end", "step")))


def _one_hot(inputs: Arguments) -> Tensor:
    classes = torch.arange(inputs.integer("one_hot_vector_size"))
    hot = inputs.tensor("indices").unsqueeze(-1) == classes
    return torch.where(hot, inputs.tensor("on_value"), inputs.tensor("off_value")).movedim(-1, inputs.integer("axis"))


def _band_part(inputs: Arguments) -> Tensor:
    x, lower, upper = inputs.tensor("x"), inputs.integer("lower"), inputs.integer("upper")
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    inside = torch.ones_like(below, dtype=torch.bool)
    if lower >= 0:
        inside &= below <= lower
    if upper >= 0:
        inside &= -below <= upper
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype))


OPERATORS: Mapping[str, Operator] = {
    "band_part": _band_part,
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "fill_like": _fill_like,
    "flatten2d": _flatten2d,
    "one_hot": _one_hot,
    "pixel_shuffle": lambda inputs: F.pixel_shuffle(inputs.tensor("x"), inputs.integer("upscale_factor")),
    "pixel_unshuffle": lambda inputs: F.pixel_unshuffle(inputs.tensor("x"), inputs.integer("downscale_factor")),
    "range_1d": _range_1d,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "reverse_sequence": _reverse_sequence,
    "shape": _shape,
    "sliding_windows": _sliding_windows,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}

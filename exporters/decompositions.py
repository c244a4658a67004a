"""Operators written in terms of others, where a converter has no translation of them or a wrong one."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten

Decomposition = Callable[..., Any]


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Any:
    """The tensor itself, where `aten.as_strided` only says so; PyTorch's adaptive pooling is an example.

    Args:
        input: Tensor of any shape.
        size: Shape of the result.
        stride: Its strides; those of dimensions of size 1 mean nothing.
        storage_offset: Position of its first element.

    Returns:
        The tensor; ``NotImplemented`` where elements move.
    """
    same = (
        list(input.shape) == list(size)
        and storage_offset in (None, 0)
        and all(length == 1 or own == given for length, own, given in zip(size, input.stride(), stride, strict=True))
    )
    return input.clone() if same else NotImplemented


def average_pool(
    rank: int,
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """Average pooling that does not count padding, or rounds its output's size up, from one that does neither.

    The padded input's mean is divided by the mean of a mask, which is 1 where elements count and 0 elsewhere.

    Args:
        rank: Number of pooled dimensions, the last ones of ``input``.
        input: Tensor of shape ``(N, C, ...)``.
        kernel_size: Size of the window in every pooled dimension, as the other arguments are.
        stride: Step of the window; empty for ``kernel_size``.
        padding: Zeros on both sides.
        ceil_mode: Whether windows may stick out at the end.
        count_include_pad: Whether padding counts.
        divisor_override: Divisor instead of the number of elements that count.

    Returns:
        The means; ``NotImplemented`` where plain pooling gives them.
    """
    kernel, step, pad = (_each(value, rank) for value in (kernel_size, stride or kernel_size, padding))
    sizes = input.shape[-rank:]
    past = [_past_the_end(*numbers) if ceil_mode else 0 for numbers in zip(sizes, kernel, step, pad, strict=True)]
    if not any(past) and (count_include_pad or not any(pad)):
        return NotImplemented
    pool = getattr(aten, f"avg_pool{rank}d").default
    inner = [side for before in reversed(pad) for side in (before, before)]
    outer = [side for after in reversed(past) for side in (0, after)]
    padded = F.pad(F.pad(input, inner), outer)
    if divisor_override is not None:
        return pool(padded, kernel, step) * (math.prod(kernel) / divisor_override)
    counted = F.pad(torch.ones_like(input[:1, :1]), inner, value=float(count_include_pad))
    return pool(padded, kernel, step) / pool(F.pad(counted, outer), kernel, step)


def adaptive_pool(reduce: Callable[..., Tensor], rank: int, input: Tensor, output_size: Sequence[int]) -> Any:
    """Adaptive pooling by means or maxima over the windows of one dimension after the other.

    Args:
        reduce: ``torch.mean`` or ``torch.amax``, of a tensor over a dimension.
        rank: Number of pooled dimensions, the last ones of ``input``.
        input: Tensor of shape ``(N, C, ...)``.
        output_size: Number of windows in every pooled dimension.

    Returns:
        The pooled tensor; ``NotImplemented`` where a size that is cut into windows is not known.
    """
    counts = _each(output_size, rank)
    if set(counts) == {1}:
        return reduce(input, list(range(-rank, 0)), keepdim=True)
    if not all(isinstance(size, int) for size in input.shape[-rank:]):
        return NotImplemented
    for axis, count in enumerate(counts, start=-rank):
        size = input.shape[axis]
        if count == size:
            continue
        ends = [(place * size // count, -(-(place + 1) * size // count)) for place in range(count)]
        windows = [reduce(input.narrow(axis, start, end - start), axis, keepdim=True) for start, end in ends]
        input = torch.cat(windows, axis)
    return input


def adaptive_max_pool(input: Tensor, output_size: Sequence[int]) -> Any:
    """Adaptive pooling by maxima in two dimensions.

    Args:
        input: Tensor of shape ``(N, C, H, W)``.
        output_size: Number of windows in height and width.

    Returns:
        The maxima, and -1 for each of their places, which no runtime says; ``NotImplemented`` where a size is not
        known.
    """
    pooled = adaptive_pool(torch.amax, 2, input, output_size)
    if pooled is NotImplemented:
        return NotImplemented
    return pooled, torch.full_like(pooled, -1, dtype=torch.int64)


def pad_circularly(input: Tensor, pad: Sequence[int]) -> Tensor:
    """A tensor continued by its own other end.

    Args:
        input: Tensor of any shape.
        pad: Elements before and after it, at most as many as it has, of the last dimension first.

    Returns:
        The longer tensor.
    """
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        parts = [input]
        if before:
            parts.insert(0, input.narrow(-axis, input.shape[-axis] - before, before))
        if after:
            parts.append(input.narrow(-axis, 0, after))
        input = torch.cat(parts, -axis)
    return input


def gelu(input: Tensor, *, approximate: str = "none") -> Any:
    """The approximation of GELU by a hyperbolic tangent, in operators of its own.

    Args:
        input: Tensor of any shape.
        approximate: ``"tanh"`` for the approximation, ``"none"`` for the exact function.

    Returns:
        The result; ``NotImplemented`` for the exact function.
    """
    if approximate != "tanh":
        return NotImplemented
    return 0.5 * input * (1 + torch.tanh(math.sqrt(2 / math.pi) * input * (1 + 0.044715 * input * input)))


def group_norm(
    input: Tensor,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Group normalisation by a layer normalisation of each group, or by means where a group is one channel.

    Args:
        input: Tensor of shape ``(N, C, ...)``.
        groups: Number of groups of channels.
        weight: Factor of each channel.
        bias: Shift of each channel.
        eps: Number added to the variance.
        cudnn_enabled: Says nothing here.

    Returns:
        The normalised tensor; ``NotImplemented`` where a size that a group of several channels spans is not known.
    """
    del cudnn_enabled
    if all(isinstance(size, int) for size in input.shape[1:]):
        parted = input.reshape(input.shape[0], groups, math.prod(input.shape[1:]) // groups)
        normal = torch.layer_norm(parted, parted.shape[-1:], eps=eps).reshape(input.shape)
    elif groups == input.shape[1]:
        places = list(range(2, input.ndim))
        centred = input - input.mean(places, keepdim=True)
        normal = centred * torch.rsqrt((centred * centred).mean(places, keepdim=True) + eps)
    else:
        return NotImplemented
    per_channel = (input.shape[1], *[1] * (input.ndim - 2))
    normal = normal if weight is None else normal * weight.reshape(per_channel)
    return normal if bias is None else normal + bias.reshape(per_channel)


def unfold(
    input: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Any:
    """Windows of an image as columns, from slices of it, or by a permutation where windows lie side by side.

    Args:
        input: Tensor of shape ``(N, C, H, W)``.
        kernel_size: Height and width of a window, as the other arguments are.
        dilation: Distance of its elements.
        padding: Zeros on both sides.
        stride: Step of the window.

    Returns:
        Tensor of shape ``(N, C * window, windows)``; ``NotImplemented`` for an input without a batch.
    """
    if input.ndim != 4:
        return NotImplemented
    batch, channels, *sizes = input.shape
    kernel, gap, pad, step = (_each(value, 2) for value in (kernel_size, dilation, padding, stride))
    counts = _windows(sizes, kernel, gap, pad, step)
    columns = (batch, channels * math.prod(kernel), math.prod(counts))
    if step == kernel and gap == [1, 1] and pad == [0, 0]:
        (rows, high), (across, wide) = zip(counts, kernel, strict=True)
        whole = input[:, :, : rows * high, : across * wide]
        return whole.reshape(-1, rows, high, across, wide).permute(0, 2, 4, 1, 3).reshape(columns)
    padded = F.pad(input, [side for own in reversed(pad) for side in (own, own)])
    spans = [by * (count - 1) + 1 for by, count in zip(step, counts, strict=True)]
    parts = [
        padded[:, :, down : down + spans[0] : step[0], right : right + spans[1] : step[1]]
        for down in range(0, kernel[0] * gap[0], gap[0])
        for right in range(0, kernel[1] * gap[1], gap[1])
    ]
    return torch.stack(parts, 2).reshape(columns)


def frames(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of one dimension, such as frames of sound, looked up by their indices.

    Args:
        input: Tensor of any shape.
        dimension: The dimension that is cut.
        size: Length of a window.
        step: Distance of two windows.

    Returns:
        The tensor with windows for elements in ``dimension``, and their elements last.
    """
    dimension %= input.ndim
    count = (input.shape[dimension] - size) // step + 1
    places = torch.arange(count).unsqueeze(1) * step + torch.arange(size)
    windows = input.index_select(dimension, places.flatten())
    cut = windows.reshape(*input.shape[:dimension], count, size, *input.shape[dimension + 1 :])
    return cut.movedim(dimension + 1, -1)


def variance(
    input: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Any:
    """Variance by means.

    Args:
        input: Tensor of any shape.
        dim: Dimensions over which it is computed; ``None`` for all.
        correction: What the number of elements is made smaller by; ``None`` for 1.
        keepdim: Whether these dimensions stay, with a size of 1.

    Returns:
        The variance; ``NotImplemented`` where a size is not known.
    """
    axes = list(range(input.ndim)) if not dim else [axis % input.ndim for axis in dim]
    sizes = [input.shape[axis] for axis in axes]
    if not all(isinstance(size, int) for size in sizes):
        return NotImplemented
    count = math.prod(sizes)
    centred = input - input.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / max(count - (1 if correction is None else correction), 0)


def fold(
    input: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Any:
    """Columns back in their places in an image, summed where windows overlap, from padded copies of them.

    Args:
        input: Tensor of shape ``(N, C * window, windows)``, as `unfold` makes it.
        output_size: Height and width of the image, in the order of the other arguments.
        kernel_size: Height and width of a window.
        dilation: Distance of its elements.
        padding: Zeros on both sides, which are cut off.
        stride: Step of the window.

    Returns:
        Tensor of shape ``(N, C, H, W)``; ``NotImplemented`` for an input without a batch.
    """
    if input.ndim != 3:
        return NotImplemented
    kernel, gap, pad, step = (_each(value, 2) for value in (kernel_size, dilation, padding, stride))
    batch, channels = input.shape[0], input.shape[1] // math.prod(kernel)
    rows, across = _windows(output_size, kernel, gap, pad, step)
    if step == kernel and gap == [1, 1] and pad == [0, 0]:
        parts = input.reshape(-1, *kernel, rows, across).permute(0, 3, 1, 4, 2)
        whole = parts.reshape(batch, channels, rows * kernel[0], across * kernel[1])
        return F.pad(whole, [0, output_size[1] - whole.shape[3], 0, output_size[0] - whole.shape[2]])
    high, wide = (size + 2 * own for size, own in zip(output_size, pad, strict=True))
    parts = input.reshape(batch, channels, math.prod(kernel), rows, across)
    total: Any = 0
    for right in range(kernel[1]):
        lines = [
            _spread(parts[:, :, down * kernel[1] + right], step[0], first=down * gap[0], length=high)
            for down in range(kernel[0])
        ]
        turned = sum(lines[1:], lines[0]).transpose(2, 3)
        total = total + _spread(turned, step[1], first=right * gap[1], length=wide).transpose(2, 3)
    return total[:, :, pad[0] : pad[0] + output_size[0], pad[1] : pad[1] + output_size[1]]


def _spread(lines: Tensor, step: int, *, first: int, length: int) -> Tensor:
    """Lines ``(N, C, lines, width)`` among ``length`` of zeros, the first at ``first``, ``step`` apart."""
    batch, channels, count, width = lines.shape
    apart = F.pad(lines.reshape(batch, channels, count, 1, width), [0, 0, 0, step - 1])
    apart = apart.reshape(batch, channels, count * step, width)[:, :, : (count - 1) * step + 1]
    return F.pad(apart, [0, 0, first, length - first - apart.shape[2]])


COMMON_DECOMPOSITIONS: dict[Any, Decomposition] = {
    aten.as_strided.default: as_strided,
    aten.im2col.default: unfold,
    aten.unfold.default: frames,
    aten.col2im.default: fold,
    aten.adaptive_avg_pool1d.default: functools.partial(adaptive_pool, torch.mean, 1),
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    **{getattr(aten, f"avg_pool{rank}d").default: functools.partial(average_pool, rank) for rank in (1, 2, 3)},
}
"""What several converters need, by operator; beside PyTorch's own table."""


def _each(value: Sequence[int], rank: int) -> list[int]:
    return list(value) * rank if len(value) == 1 else list(value)


def _windows(
    sizes: Sequence[int], kernel: Sequence[int], gap: Sequence[int], pad: Sequence[int], step: Sequence[int]
) -> list[int]:
    """Number of windows in each dimension."""
    return [
        (size + 2 * own - wide * (length - 1) - 1) // by + 1
        for size, own, wide, length, by in zip(sizes, pad, gap, kernel, step, strict=True)
    ]


def _past_the_end(size: int, kernel: int, step: int, pad: int) -> int:
    """Elements by which the last window, which must begin inside the input or its left padding, sticks out."""
    windows = -(-(size + 2 * pad - kernel) // step) + 1
    if (windows - 1) * step >= size + pad:
        windows -= 1
    return int(max(0, (windows - 1) * step + kernel - (size + 2 * pad)))

"""Matrix products and convolutions."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def pads(inputs: Arguments, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Elements added before and after every spatial dimension, in MIL's order: before 0, after 0, before 1, ...

    Args:
        inputs: Holds ``pad_type`` and ``pad``.
        sizes: Spatial sizes of the input.
        extents: Elements that the window spans in each dimension, dilation included.
        strides: Step of the window in each dimension.
    """
    kind = inputs.text("pad_type")
    if kind == "valid":
        return [0] * (2 * len(sizes))
    if kind == "custom":
        return inputs.integers("pad")
    result = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
        smaller, larger = total // 2, total - total // 2
        result += [larger, smaller] if kind == "same_lower" else [smaller, larger]
    return result


def pad_spatial(x: Tensor, amounts: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the trailing dimensions of ``x``; ``amounts`` are in MIL's order."""
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=value)


def _extents(inputs: Arguments) -> list[int]:
    kernel = inputs.tensor("weight").shape[2:]
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, inputs.integers("dilations"), strict=True)]


def _conv(inputs: Arguments) -> Tensor:
    x, strides = inputs.tensor("x"), inputs.integers("strides")
    padded = pad_spatial(x, pads(inputs, x.shape[2:], _extents(inputs), strides))
    result: Tensor = _CONVOLUTIONS[x.ndim - 2](
        padded,
        inputs.tensor("weight"),
        inputs.optional("bias"),
        stride=strides,
        dilation=inputs.integers("dilations"),
        groups=inputs.integer("groups"),
    )
    return result


def _conv_transpose(inputs: Arguments) -> Tensor:
    x, strides = inputs.tensor("x"), inputs.integers("strides")
    full: Tensor = _TRANSPOSED[x.ndim - 2](
        x,
        inputs.tensor("weight"),
        inputs.optional("bias"),
        stride=strides,
        dilation=inputs.integers("dilations"),
        groups=inputs.integer("groups"),
    )
    return pad_spatial(full, [-amount for amount in _crops(inputs, full.shape[2:])])


def _crops(inputs: Arguments, sizes: Sequence[int]) -> list[int]:
    """Elements to cut off a full transposed convolution before and after every dimension; negative to add zeros."""
    is_same = inputs.text("pad_type").startswith("same")
    amounts = [0] * (2 * len(sizes)) if inputs.text("pad_type") == "valid" else inputs.integers("pad")
    if inputs.optional("output_shape") is not None:
        wanted = inputs.integers("output_shape")[2:]
    elif is_same:
        given = zip(inputs.tensor("x").shape[2:], inputs.integers("strides"), strict=True)
        wanted = [size * stride for size, stride in given]
    else:
        return amounts
    result = []
    for size, length, before in zip(sizes, wanted, amounts[::2], strict=True):
        first = (size - length) // 2 if is_same else before
        result += [first, size - first - length]
    return result


def _linear(inputs: Arguments) -> Tensor:
    return F.linear(inputs.tensor("x"), inputs.tensor("weight"), inputs.optional("bias"))


def _matmul(inputs: Arguments) -> Tensor:
    x, y = inputs.tensor("x"), inputs.tensor("y")
    if inputs.flag("transpose_x") and x.ndim > 1:
        x = x.transpose(-1, -2)
    if inputs.flag("transpose_y") and y.ndim > 1:
        y = y.transpose(-1, -2)
    return x @ y


def _einsum(inputs: Arguments) -> Tensor:
    return torch.einsum(inputs.text("equation"), *inputs.tensors("values"))


def _attention(inputs: Arguments) -> Tensor:
    mask = inputs.optional("attn_mask")
    return F.scaled_dot_product_attention(
        inputs.tensor("query"), inputs.tensor("key"), inputs.tensor("value"), attn_mask=mask
    )


OPERATORS: Mapping[str, Operator] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}

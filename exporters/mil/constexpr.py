"""Decompression of weights: operators whose inputs are all constants."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _affine_dequantize(inputs: Arguments) -> Tensor:
    data = inputs.tensor("quantized_data")
    shape = [1] * data.ndim
    shape[inputs.integer("axis")] = -1
    scale, zero = (
        value.reshape(shape) if value.ndim else value for value in (inputs.tensor("scale"), inputs.tensor("zero_point"))
    )
    return scale * (data - zero)


def _cast(inputs: Arguments) -> Tensor:
    return inputs.tensor("source_val")


def _bits(packed: Tensor, width: int, count: int) -> Tensor:
    """``count`` numbers of ``width`` bits from bytes, least significant bit first."""
    bits = (packed[:, None] >> torch.arange(8)) & 1
    return (bits.flatten()[: width * count].reshape(count, width) << torch.arange(width)).sum(1)


def _lut_to_dense(inputs: Arguments) -> Tensor:
    lut, indices = inputs.tensor("lut"), inputs.tensor("indices")
    if inputs.optional("shape") is not None:  # the form of iOS 16: packed indices, one table
        shape = inputs.integers("shape")
        width = (lut.numel() - 1).bit_length()
        return lut[_bits(indices, width, torch.Size(shape).numel())].reshape(shape)
    return _looked_up(indices, inputs)


def _looked_up(indices: Tensor, inputs: Arguments) -> Tensor:
    lut = inputs.tensor("lut")
    groups = _per_element(lut.shape[:-2], indices.shape)
    values = lut[(*groups, indices.long())]
    if lut.shape[-1] == 1:
        return values.squeeze(-1)
    axis = inputs.integer("vector_axis") % indices.ndim
    return values.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _per_element(blocks: Sequence[int], shape: Sequence[int]) -> list[Tensor]:
    """Index of the block in which every element lies, one tensor per dimension, ready to be broadcast."""
    return [
        (torch.arange(size) // (size // count)).reshape([-1 if other == axis else 1 for other in range(len(shape))])
        for axis, (size, count) in enumerate(zip(shape, blocks, strict=True))
    ]


def _sparse_to_dense(inputs: Arguments) -> Tensor:
    mask = inputs.tensor("mask")
    if inputs.optional("shape") is not None:  # the form of iOS 16: a packed mask
        shape = inputs.integers("shape")
        mask = _bits(mask, 1, torch.Size(shape).numel()).reshape(shape)
    return _dense(inputs.tensor("nonzero_data"), mask)


def _dense(values: Tensor, mask: Tensor) -> Tensor:
    result = torch.zeros(mask.shape, dtype=values.dtype)
    result[mask != 0] = values
    return result


def _shift_and_scale(data: Tensor, inputs: Arguments) -> Tensor:
    scale, offset = inputs.tensor("scale"), inputs.optional("offset")
    blocks = tuple(_per_element(scale.shape, data.shape))
    return scale[blocks] * (data if offset is None else data - offset[blocks])


def _blockwise_shift_scale(inputs: Arguments) -> Tensor:
    return _shift_and_scale(inputs.tensor("data"), inputs)


def _sparse_blockwise_shift_scale(inputs: Arguments) -> list[Tensor]:
    mask = inputs.tensor("data_mask")
    return [mask, _shift_and_scale(_dense(inputs.tensor("nonzero_data"), mask), inputs)[mask != 0]]


def _lut_to_sparse(inputs: Arguments) -> list[Tensor]:
    mask = inputs.tensor("indices_mask")
    values = _looked_up(_dense(inputs.tensor("indices_nonzero_data"), mask), inputs)
    length = inputs.tensor("lut").shape[-1]
    if length > 1:
        mask = mask.repeat_interleave(length, inputs.integer("vector_axis"))
    return [mask, values[mask != 0]]


OPERATORS: Mapping[str, Operator] = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}

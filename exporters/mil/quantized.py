"""Quantisation of activations."""

from collections.abc import Mapping

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def _parameters(inputs: Arguments) -> tuple[Tensor, Tensor]:
    """Scale and zero point, shaped to be broadcast over the input."""
    shape = [1] * inputs.tensor("input").ndim
    scale, zero = inputs.tensor("scale"), inputs.optional("zero_point")
    if scale.ndim:
        shape[inputs.integer("axis")] = -1
    zero = torch.zeros_like(scale) if zero is None else zero
    return scale.reshape(shape), zero.reshape(shape)


def _quantize(inputs: Arguments) -> Tensor:
    scale, zero = _parameters(inputs)
    return (torch.round(inputs.tensor("input") / scale) + zero).clamp(*_RANGES[inputs.text("output_dtype")])


def _dequantize(inputs: Arguments) -> Tensor:
    scale, zero = _parameters(inputs)
    return scale * (inputs.tensor("input") - zero)


OPERATORS: Mapping[str, Operator] = {"dequantize": _dequantize, "quantize": _quantize}

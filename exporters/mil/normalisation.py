"""Normalisations."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _standardise(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + epsilon)


def _affine(x: Tensor, inputs: Arguments, shape: list[int]) -> Tensor:
    gamma, beta = inputs.optional("gamma"), inputs.optional("beta")
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _along_channels(x: Tensor) -> list[int]:
    return [1, -1, *(1,) * (x.ndim - 2)]


def _batch_norm(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    shape = _along_channels(x)
    mean, variance = inputs.tensor("mean").reshape(shape), inputs.tensor("variance").reshape(shape)
    return _affine((x - mean) * torch.rsqrt(variance + inputs.number("epsilon")), inputs, shape)


def _instance_norm(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    return _affine(_standardise(x, list(range(2, x.ndim)), inputs.number("epsilon")), inputs, _along_channels(x))


def _layer_norm(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    given = inputs.optional("axes")
    axes = [axis % x.ndim for axis in (range(x.ndim) if given is None else inputs.integers("axes"))]
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    return _affine(_standardise(x, axes, inputs.number("epsilon")), inputs, shape)


def _l2_norm(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + inputs.number("epsilon"))


def _local_response_norm(inputs: Arguments) -> Tensor:
    return F.local_response_norm(
        inputs.tensor("x"),
        inputs.integer("size"),
        alpha=inputs.number("alpha"),
        beta=inputs.number("beta"),
        k=inputs.number("k"),
    )


OPERATORS: Mapping[str, Operator] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}

"""Activation functions."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"))


def _with_alpha(function: Callable[[Tensor, float], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"), inputs.number("alpha"))


def _with_alpha_beta(function: Callable[[Tensor, float, float], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"), inputs.number("alpha"), inputs.number("beta"))


def _gelu(inputs: Arguments) -> Tensor:
    x, mode = inputs.tensor("x"), inputs.text("mode")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def _prelu(inputs: Arguments) -> Tensor:
    return F.prelu(inputs.tensor("x"), inputs.tensor("alpha"))


def _softplus_parametric(inputs: Arguments) -> Tensor:
    x = inputs.tensor("x")
    shape = (1, -1, *(1,) * (x.ndim - 2))
    return inputs.tensor("alpha").reshape(shape) * F.softplus(inputs.tensor("beta").reshape(shape) * x)


def _softmax(inputs: Arguments) -> Tensor:
    return torch.softmax(inputs.tensor("x"), inputs.integer("axis"))


OPERATORS: Mapping[str, Operator] = {
    "clamped_relu": _with_alpha_beta(lambda x, alpha, beta: torch.where(x >= 0, x, alpha * x).clamp(max=beta)),
    "elu": _with_alpha(F.elu),
    "gelu": _gelu,
    "leaky_relu": _with_alpha(F.leaky_relu),
    "linear_activation": _with_alpha_beta(lambda x, alpha, beta: alpha * x + beta),
    "prelu": _prelu,
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "scaled_tanh": _with_alpha_beta(lambda x, alpha, beta: alpha * torch.tanh(beta * x)),
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": _with_alpha_beta(lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1)),
    "silu": _unary(F.silu),
    "softmax": _softmax,
    "softplus": _unary(F.softplus),
    "softplus_parametric": _softplus_parametric,
    "softsign": _unary(F.softsign),
    "thresholded_relu": _with_alpha(lambda x, alpha: torch.where(x >= alpha, x, 0.0)),
}

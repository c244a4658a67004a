"""Operators that treat every element alike: arithmetic, comparisons, logic, type changes."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from exporters.mil.arguments import Arguments, Operator


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x"), inputs.tensor("y"))


def _of_shifted(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs: function(inputs.tensor("x") + inputs.number("epsilon"))


def _power(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x.float(), y.float())


def _clip(inputs: Arguments) -> Tensor:
    return inputs.tensor("x").clamp(inputs.number("alpha"), inputs.number("beta"))


def _threshold(inputs: Arguments) -> Tensor:
    return inputs.tensor("x").clamp(min=inputs.number("alpha"))


def _select(inputs: Arguments) -> Tensor:
    return torch.where(inputs.tensor("cond").bool(), inputs.tensor("a"), inputs.tensor("b"))


_UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "cast": torch.clone,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": torch.clone,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
_BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": _power,
    "real_div": torch.div,
    "sub": torch.sub,
}

OPERATORS: Mapping[str, Operator] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    "clip": _clip,
    "inverse": _of_shifted(torch.reciprocal),
    "log": _of_shifted(torch.log),
    "rsqrt": _of_shifted(torch.rsqrt),
    "select": _select,
    "threshold": _threshold,
}

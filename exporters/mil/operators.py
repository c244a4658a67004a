"""The table of all operators that can be evaluated."""

from collections.abc import Mapping

from exporters.mil import (
    activations,
    constexpr,
    elementwise,
    indexing,
    linear,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    shape,
)
from exporters.mil.arguments import Operator

OPERATORS: Mapping[str, Operator] = {
    **activations.OPERATORS,
    **constexpr.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **linear.OPERATORS,
    **normalisation.OPERATORS,
    **pooling.OPERATORS,
    **quantized.OPERATORS,
    **recurrent.OPERATORS,
    **reduction.OPERATORS,
    **resizing.OPERATORS,
    **shape.OPERATORS,
}
"""Operators by MIL's name; `const`, `cond` and `while_loop` are the evaluator's own."""

"""Levels are shared out by the gradients' norms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.compression import allocate_levels, gradient_norms
from lightning_kd.errors import SetupError


def test_norms_are_those_of_the_gradients():
    weights = {"a": torch.tensor([3.0, 4.0], requires_grad=True), "unused": torch.ones(2, requires_grad=True)}
    assert gradient_norms((weights["a"] ** 2).sum(), weights) == {"a": 10.0, "unused": 0.0}


def test_what_does_not_divide_goes_to_the_largest_remainder():
    # 6 free levels in the ratio 2 : 1 : 1 are 3, 1.5 and 1.5; the first of the equal remainders gets the last one.
    assert allocate_levels({"a": 2.0, "b": 1.0, "c": 1.0}, levels=4) == {"a": 5, "b": 4, "c": 3}


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8), st.integers(2, 64))
def test_nothing_is_lost_and_nobody_gets_too_few(norms, levels):
    if sum(norms) == 0:
        norms[0] = 1.0
    shares = allocate_levels({str(index): norm for index, norm in enumerate(norms)}, levels=levels)
    assert sum(shares.values()) == levels * len(norms)
    assert min(shares.values()) >= 2


def test_norms_that_say_nothing_are_refused():
    with pytest.raises(SetupError, match=r"not all 0, got \{'a': 0.0\}"):
        allocate_levels({"a": 0.0}, levels=4)
    with pytest.raises(ValueError, match="`levels` must be at least `least`, 4, got 3"):
        allocate_levels({"a": 1.0}, levels=3, least=4)

"""Claims about the symmetric divergences; those that all losses on scores share: test_scores.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from torch.testing import assert_close

from lightning_kd.losses import jensen_shannon, soft_target_kl, symmetric_kl

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def logit_pairs(draw, bound=10):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 6)))
    values = arrays(np.float64, (2, *shape), elements=st.floats(-bound, bound, width=32))
    return torch.from_numpy(draw(values)).unbind()


def test_symmetric_kl_equals_the_published_value():
    assert symmetric_kl(ZS, ZT).item() == pytest.approx(0.1485935329, rel=1e-9)


def test_jensen_shannon_equals_the_published_value():
    assert jensen_shannon(ZS, ZT).item() == pytest.approx(0.0349280048, rel=1e-8)


@given(logit_pairs())
def test_symmetric_kl_equals_scipy(pair):
    p, q = (softmax(z.numpy(), axis=1) for z in pair)
    expected = torch.from_numpy((entropy(p, q, axis=1) + entropy(q, p, axis=1)) / 2)
    assert_close(symmetric_kl(*pair, reduction="none"), expected, rtol=1e-9, atol=1e-9)


@given(logit_pairs())
def test_jensen_shannon_equals_scipy(pair):
    p, q = (softmax(z.numpy(), axis=1) for z in pair)
    expected = torch.from_numpy((rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(axis=1) / 2)
    assert_close(jensen_shannon(*pair, reduction="none"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", [symmetric_kl, jensen_shannon])
@given(pair=logit_pairs())
def test_both_are_symmetric(loss, pair):
    student, teacher = pair
    assert_close(loss(student, teacher), loss(teacher, student), **EXACT)


@given(logit_pairs())
def test_symmetric_kl_is_the_mean_of_both_directions(pair):
    student, teacher = pair
    both = soft_target_kl(student, teacher, temperature=1.0) + soft_target_kl(teacher, student, temperature=1.0)
    assert_close(symmetric_kl(student, teacher), both / 2, rtol=1e-9, atol=1e-10)


@given(logit_pairs(bound=500))
def test_jensen_shannon_is_bounded_and_below_half_of_the_symmetric_kl(pair):
    loss = jensen_shannon(*pair, reduction="none")
    assert (loss <= np.log(2.0) + 1e-12).all()
    assert (loss <= symmetric_kl(*pair, reduction="none") / 2 + 1e-12).all()

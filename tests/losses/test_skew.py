"""Claims about the skew divergences; those that all losses on scores share: test_scores.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy
from torch.testing import assert_close

from lightning_kd.losses import SkewKL, SkewReverseKL, skew_kl, skew_reverse_kl, soft_target_kl

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
skews = st.sampled_from([0.01, 0.1, 0.5, 0.9])


@st.composite
def logit_pairs(draw, bound=10):
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 6)))
    values = arrays(np.float64, (2, *shape), elements=st.floats(-bound, bound, width=32))
    return torch.from_numpy(draw(values)).unbind()


def test_equal_the_published_values():
    assert skew_kl(ZS, ZT).item() == pytest.approx(0.1041014407, rel=1e-9)
    assert skew_reverse_kl(ZS, ZT).item() == pytest.approx(0.1260236222, rel=1e-9)


def test_the_official_cross_entropy_is_larger_by_the_teachers_entropy():
    p = softmax(ZT.numpy(), axis=1)
    assert skew_kl(ZS, ZT).item() + entropy(p, axis=1).mean() == pytest.approx(0.5812690292, rel=1e-9)


@given(logit_pairs(), skews)
def test_equal_scipy(pair, skew):
    q, p = (softmax(z.numpy(), axis=1) for z in pair)
    forward = torch.from_numpy(entropy(p, skew * p + (1 - skew) * q, axis=1))
    reverse = torch.from_numpy(entropy(q, skew * q + (1 - skew) * p, axis=1))
    assert_close(skew_kl(*pair, skew=skew, reduction="none"), forward, rtol=1e-9, atol=1e-9)
    assert_close(skew_reverse_kl(*pair, skew=skew, reduction="none"), reverse, rtol=1e-9, atol=1e-9)


@given(logit_pairs(), skews)
def test_each_is_the_other_with_the_roles_exchanged(pair, skew):
    student, teacher = pair
    assert skew_reverse_kl(student, teacher, skew=skew) == skew_kl(teacher, student, skew=skew)


@pytest.mark.parametrize("loss", [skew_kl, skew_reverse_kl])
@given(pair=logit_pairs(bound=500), skew=skews)
def test_both_are_bounded_by_the_share(loss, pair, skew):
    assert (loss(*pair, skew=skew, reduction="none") <= -np.log(skew) + 1e-9).all()


@given(logit_pairs(bound=3))
def test_without_skew_it_would_be_the_kl_divergence(pair):
    assert_close(skew_kl(*pair, skew=1e-9), soft_target_kl(*pair, temperature=1.0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("skew", [0.0, 1.0, -0.1, float("nan")])
def test_refuse_a_share_that_mixes_nothing(skew):
    for refusing in (lambda: skew_kl(ZS, ZT, skew=skew), lambda: skew_reverse_kl(ZS, ZT, skew=skew)):
        with pytest.raises(ValueError, match=rf"`skew` must be above 0 and below 1, got {skew}"):
            refusing()
    for module in (SkewKL, SkewReverseKL):
        with pytest.raises(ValueError, match=rf"got {skew}"):
            module(skew=skew)

"""UNIC's loss of one teacher, and the mean over teachers of which some are left out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.errors import ShapeError
from lightning_kd.losses import CosineSmoothL1, DroppedMean, cosine_smooth_l1, dropped_mean

S, T = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([[0.0, 1.0, 3.0]]).double()


def test_half_cosine_half_smooth_l1():
    # 1 - 2 / sqrt(50) = 0.7171572875; (0.5 + 0.5 + 2.5) / 3 = 1.1666666667; the sheet's mean of both.
    assert cosine_smooth_l1(S, T).item() == pytest.approx(0.9419119771, abs=1e-9)
    assert CosineSmoothL1()(S, T).item() == pytest.approx((0.7171572875 + 1.1666666667) / 2, abs=1e-9)


@given(st.integers(0, 1000))
def test_is_zero_at_equality_and_never_negative(seed):
    generator = torch.Generator().manual_seed(seed)
    s, t = torch.randn(2, 4, 6, generator=generator), torch.randn(2, 4, 6, generator=generator)
    assert cosine_smooth_l1(s, s) == 0
    assert (cosine_smooth_l1(s, t, reduction="none") >= 0).all()
    torch.testing.assert_close(cosine_smooth_l1(s, t, reduction="none").mean(), cosine_smooth_l1(s, t))


def test_no_gradient_reaches_the_teacher_and_half_is_promoted():
    s, t = S.half().requires_grad_(), T.half().requires_grad_()
    loss = cosine_smooth_l1(s, t)
    loss.backward()
    assert loss.dtype == torch.float32
    assert t.grad is None
    assert s.grad is not None


def test_without_dropping_all_count_and_with_it_only_the_largest():
    losses = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    assert dropped_mean(losses, probability=0.0) == 1.75
    assert dropped_mean(losses, probability=1.0) == 2.5
    assert DroppedMean(probability=1.0)(losses) == 2.5


def test_samples_that_keep_more_teachers_count_more():
    losses = torch.tensor([[1.0, 5.0], [3.0, 1.0]])

    values = {dropped_mean(losses, generator=torch.Generator().manual_seed(seed)).item() for seed in range(64)}
    # Kept beside 3 and 5: nothing, the 1 of the first sample, that of the second, or both. (3 + 5 + 1) / 3 = 3.
    assert {round(value, 6) for value in values} == {4.0, 3.0, 2.5}


def test_each_other_teacher_is_left_out_with_the_given_chance():
    losses = torch.zeros(2, 20000)
    losses[0] = 1.0
    kept = 1 / dropped_mean(losses, probability=0.3, generator=torch.Generator().manual_seed(0)).item() - 1
    assert kept == pytest.approx(0.7, abs=3 * np.sqrt(0.7 * 0.3 / 20000))


def test_wrong_arguments_are_named():
    with pytest.raises(ShapeError, match=r"must have shape \(teachers, samples\), got \(3,\)"):
        dropped_mean(torch.zeros(3))
    with pytest.raises(ValueError, match=r"`probability` must be a number from 0 to 1, got 1\.5"):
        dropped_mean(torch.zeros(2, 2), probability=1.5)
    with pytest.raises(ValueError, match="`probability`"):
        DroppedMean(probability=-0.1)
    with pytest.raises(ShapeError, match=r"got \(1, 3\) and \(1, 2\)"):
        cosine_smooth_l1(S, T[:, :2])
    with pytest.raises(ValueError, match="`reduction`"):
        CosineSmoothL1(reduction="max")


def test_reprs_show_the_options():
    assert "reduction='sum'" in repr(CosineSmoothL1(reduction="sum"))
    assert "probability=0.2" in repr(DroppedMean(probability=0.2))

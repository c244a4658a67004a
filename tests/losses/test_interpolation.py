"""Claims about TAID's target and schedule; those that all losses on scores share: test_scores.py."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch.testing import assert_close

from lightning_kd.losses import (
    InterpolatedCrossEntropy,
    Interpolation,
    interpolated_cross_entropy,
    next_interpolation,
    soft_cross_entropy,
)

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

losses_over_time = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=20)


def run(losses, total, **options):
    """Share of the teacher before each step and after the last, with the state's tensors."""
    state, mixes = Interpolation.begin(options.get("start", 0.4)), []
    for step, loss in enumerate(losses, start=1):
        state = next_interpolation(state, torch.tensor(loss), progress=step / total, **options)
        mixes.append(state.mix.item())
    return mixes


def reference(losses, total, *, start=0.4, end=1.0, rate=5e-4, decay=0.99):
    mix, momentum, previous, mixes = start, 0.0, None, []
    for step, loss in enumerate(losses, start=1):
        if previous is not None:
            momentum = decay * momentum + (1 - decay) * (previous - loss) / (previous + 1e-15)
            ramp = start + (end - start) * step / total
            mix = min(end, max(ramp, mix + rate * expit(momentum) * (1 - mix)))
        previous = loss
        mixes.append(mix)
    return mixes


def test_equals_the_published_values():
    assert interpolated_cross_entropy(ZS, ZT, mix=0.4).item() == pytest.approx(0.7073509919, rel=1e-9)
    # The gradient of a cross-entropy is the difference of the distributions: it shows the target.
    student = ZS.clone().requires_grad_()
    interpolated_cross_entropy(student, ZT, mix=0.4, reduction="sum").backward()
    target = [[0.86517936, 0.10594677, 0.02887386], [0.19521201, 0.64812669, 0.15666131]]
    assert_close(ZS.softmax(dim=1) - student.grad, torch.tensor(target, dtype=torch.float64), rtol=0.0, atol=1e-8)


@given(st.floats(0.0, 1.0))
def test_the_gradient_stops_at_the_target(mix):
    student = ZS.clone().requires_grad_()
    interpolated_cross_entropy(student, ZT, mix=mix, reduction="sum").backward()
    target = torch.from_numpy(softmax((1 - mix) * ZS.numpy() + mix * ZT.numpy(), axis=1))
    assert_close(student.grad, ZS.softmax(dim=1) - target, **EXACT)


def test_at_the_ends_it_is_the_teachers_cross_entropy_and_the_students_entropy():
    assert_close(interpolated_cross_entropy(ZS, ZT, mix=1.0), soft_cross_entropy(ZS, ZT), **EXACT)
    student = ZS.clone().requires_grad_()
    loss = interpolated_cross_entropy(student, ZT, mix=0.0)
    loss.backward()
    assert_close(loss.detach(), soft_cross_entropy(ZS, ZS), **EXACT)
    assert_close(student.grad, torch.zeros_like(ZS), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_a_class_that_both_mask_contributes_nothing_at_any_share(mix):
    closed = torch.full((2, 1), -torch.inf, dtype=torch.float64)
    wider = torch.cat([ZS, closed], dim=1).requires_grad_()
    loss = interpolated_cross_entropy(wider, torch.cat([ZT, closed], dim=1), mix=mix)
    loss.backward()
    assert_close(loss.detach(), interpolated_cross_entropy(ZS, ZT, mix=mix), **EXACT)
    assert wider.grad.isfinite().all()


def test_takes_the_share_as_a_tensor():
    share = torch.tensor(0.4)
    loss = interpolated_cross_entropy(ZS, ZT, mix=share)
    assert_close(loss, interpolated_cross_entropy(ZS, ZT, mix=share.item()), **EXACT)


def test_the_schedule_equals_the_published_values():
    assert run([1.0, 0.9, 0.85], total=100) == pytest.approx([0.4, 0.412, 0.418], rel=1e-6)


@given(losses_over_time, st.sampled_from([20, 50, 10_000]))
def test_the_schedule_equals_the_reference(losses, total):
    assert run(losses, total) == pytest.approx(reference(losses, total), rel=1e-5)
    eager = {"start": 0.2, "end": 0.8, "rate": 0.3, "decay": 0.5}
    assert run(losses, total, **eager) == pytest.approx(reference(losses, total, **eager), rel=1e-4)


@given(losses_over_time)
def test_the_share_never_falls_and_reaches_the_end(losses):
    mixes = run(losses, total=len(losses))
    assert all(later >= earlier for earlier, later in itertools.pairwise(mixes))
    assert all(mix <= 1.0 for mix in mixes)
    assert len(losses) == 1 or mixes[-1] == pytest.approx(1.0)


def test_a_falling_loss_moves_the_target_faster():
    falling, level = (run(values, total=10**9, rate=0.1) for values in ([1.0, 0.1, 0.01], [1.0, 1.0, 1.0]))
    assert falling[-1] > level[-1] > 0.4


def test_the_first_call_only_remembers_its_loss():
    state = next_interpolation(Interpolation.begin(), torch.tensor(2.0), progress=0.5)
    assert [value.item() for value in state] == pytest.approx([0.4, 0.0, 2.0])


def test_the_state_carries_no_gradient():
    loss = torch.tensor(1.0, requires_grad=True)
    state = next_interpolation(Interpolation.begin(), loss, progress=0.5)
    assert not any(value.requires_grad for value in next_interpolation(state, 2 * loss, progress=0.5))


@pytest.mark.parametrize("mix", [-0.1, 1.1, math.nan])
def test_refuses_a_share_out_of_range(mix):
    with pytest.raises(ValueError, match=rf"`mix` must be a number from 0 to 1, got {mix}"):
        interpolated_cross_entropy(ZS, ZT, mix=mix)
    with pytest.raises(ValueError, match=rf"got {mix}"):
        InterpolatedCrossEntropy(mix=mix)


@pytest.mark.parametrize("option", ["start", "end", "decay", "rate", "progress"])
def test_the_schedule_refuses_options_out_of_range(option):
    with pytest.raises(ValueError, match=rf"`{option}` must be .* got -0\.5"):
        next_interpolation(Interpolation.begin(), torch.tensor(1.0), **{"progress": 0.1, option: -0.5})
    with pytest.raises(ValueError, match=r"`start` must be a number from 0 to 1, got 2"):
        Interpolation.begin(2)

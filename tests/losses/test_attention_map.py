"""Claims about `attention_transfer`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import LayoutError, ShapeError
from lightning_kd.losses import AttentionTransfer, attention_transfer

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def map_pairs(draw):
    shape = draw(st.sampled_from([(2, 2, 1, 1), (1, 3, 4, 4), (3, 2, 2, 3), (2, 2, 5)]))
    # Steps of 1/8 keep maps away from lengths that count as 1e-12.
    values = arrays(np.float64, shape, elements=st.integers(-40, 40).map(lambda i: i / 8))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def reference_map(feature, power):
    """One sample at a time, position by position."""
    maps = np.empty((len(feature), *feature.shape[2:]))
    for n, sample in enumerate(feature):
        sums = np.zeros(feature.shape[2:])
        for channel in sample:
            sums += channel**power / len(sample)
        length = np.sqrt((sums**2).sum())
        maps[n] = sums / length if length else sums
    return maps


def test_equals_the_published_value():
    # Maps (1, 5, 1, 1)/2 and (5, 1, 1, 5)/2 of lengths sqrt(28)/2 and sqrt(52)/2: (2 - 2 * 16 / sqrt(28 * 52)) / 4
    loss = attention_transfer(MS, MT)
    assert loss.item() == pytest.approx(0.2903430327, rel=1e-9)
    assert loss.item() == pytest.approx((2 - 32 / np.sqrt(28 * 52)) / 4, rel=1e-12)


@given(map_pairs(), st.integers(1, 4))
def test_equals_the_reference(pair, power):
    student, teacher = (reference_map(feature.numpy(), power) for feature in pair)
    each = attention_transfer(*pair, power=power, reduction="none")
    np.testing.assert_allclose(each.numpy(), (student - teacher) ** 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fine", ["student", "teacher"])
def test_the_finer_feature_is_averaged_to_the_smaller_grid_first(fine):
    coarse, large = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 5, 8, 8, dtype=torch.float64)
    averaged = torch.from_numpy(large.numpy().reshape(2, 5, 4, 2, 4, 2).mean(axis=(3, 5)))
    pair, expected = (
        ((large, coarse), (averaged, coarse)) if fine == "student" else ((coarse, large), (coarse, averaged))
    )
    assert_close(attention_transfer(*pair), attention_transfer(*expected), **EXACT)


@given(map_pairs())
def test_is_zero_at_equality_and_not_negative(pair):
    assert attention_transfer(pair[1], pair[1]).item() == 0.0
    assert attention_transfer(*pair).item() >= 0.0


@given(map_pairs(), st.sampled_from([0.5, 2.0, -3.0]))
def test_ignores_the_scale_of_either_side(pair, factor):
    student, teacher = pair
    assert_close(attention_transfer(factor * student, teacher), attention_transfer(student, teacher), **EXACT)
    assert_close(attention_transfer(student, factor * teacher), attention_transfer(student, teacher), **EXACT)


@given(map_pairs(), st.randoms(use_true_random=False))
def test_ignores_the_order_and_repetition_of_channels(pair, random):
    student, teacher = pair
    order = random.sample(range(student.shape[1]), student.shape[1])
    repeated = torch.cat([student[:, order], student], dim=1)
    assert_close(attention_transfer(repeated, teacher), attention_transfer(student, teacher), **EXACT)


@given(map_pairs())
def test_reductions_agree(pair):
    each = attention_transfer(*pair, reduction="none")
    assert each.shape == (len(pair[0]), *pair[0].shape[2:])
    assert_close(attention_transfer(*pair), each.mean(), **EXACT)
    assert_close(attention_transfer(*pair, reduction="sum"), each.sum(), **EXACT)


def test_powers_differ_by_sign_for_odd_ones_only():
    assert_close(attention_transfer(-MS, MT, power=2), attention_transfer(MS, MT, power=2), **EXACT)
    assert attention_transfer(-MS, MT, power=1) > attention_transfer(MS, MT, power=1)


def test_has_an_exact_gradient():
    student, teacher = torch.randn(2, 2, 3, 2, 3, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(lambda s: attention_transfer(s, teacher), student.requires_grad_())


def test_a_map_of_zeros_has_finite_value_and_gradient():
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = attention_transfer(student, torch.ones(1, 2, 2, 2))
    loss.backward()
    # The teacher's map is 1/2 everywhere.
    assert loss.item() == pytest.approx(0.25, rel=1e-6)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    assert attention_transfer(MS.to(given_dtype), MT.to(given_dtype)).dtype == returned


@pytest.mark.parametrize("samples", [1, 4])
def test_equals_itself_under_bfloat16_autocast(samples):
    student, teacher = torch.randn(2, samples, 3, 8, 8).unbind()
    student.requires_grad_()
    expected = attention_transfer(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = attention_transfer(student, teacher)
    loss.backward()
    assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


def test_squares_of_half_precision_do_not_overflow():
    student = torch.full((1, 2, 2, 2), 6e4, dtype=torch.float16)
    assert attention_transfer(student, MT.half()).isfinite()


def test_gives_the_teacher_no_gradient():
    student, teacher = MS.clone().requires_grad_(), MT.clone().requires_grad_()
    attention_transfer(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_module_computes_the_function():
    module = AttentionTransfer(power=4, reduction="sum")
    assert module(MS, MT) == attention_transfer(MS, MT, power=4, reduction="sum")
    assert repr(module) == "AttentionTransfer(power=4, reduction='sum')"


def test_refuses_features_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"`teacher` must be a map \(N, C, H, W\) or frames \(N, C, T\), got \(1, 2\)"):
        attention_transfer(MS, MT.mean((2, 3)))
    with pytest.raises(LayoutError, match=r"student \(1, 2, 2, 2\), teacher \(1, 2, 4\)"):
        attention_transfer(MS, MT.flatten(2))
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2\) and \(2, 2, 2\)"):
        attention_transfer(MS, MT.repeat(2, 1, 1, 1))
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 2, 2, 2\)"):
        attention_transfer(MS[:0], MT[:0])
    with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
        attention_transfer(MS, MT.long())


@pytest.mark.parametrize("power", [0, 1.5, True])
def test_refuses_powers_that_are_not_whole_and_positive(power):
    with pytest.raises(ValueError, match=rf"`power` must be a whole number of at least 1, got {power}"):
        attention_transfer(MS, MT, power=power)
    with pytest.raises(ValueError, match=rf"got {power}"):
        AttentionTransfer(power=power)


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'batch'"):
        AttentionTransfer(reduction="batch")

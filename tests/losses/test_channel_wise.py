"""Claims about `channel_wise_kl`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import ChannelWiseKL, channel_wise_kl

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

temperatures = st.sampled_from([0.5, 1.0, 4.0])


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(2, 3, 4), (1, 2, 2, 3), (3, 2, 2, 2)]))
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
    mask = arrays(np.bool_, (shape[0], *shape[2:]))
    return tuple(torch.from_numpy(draw(array)) for array in (values, values, mask))


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.5797304157), (4.0, 0.6683164270)])
def test_equals_the_published_values(temperature, expected):
    assert channel_wise_kl(MS, MT, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


@given(cases(), temperatures)
def test_equals_the_reference_without_the_positions_left_out(case, temperature):
    student, teacher, mask = (tensor.numpy() for tensor in case)
    expected = [
        temperature**2 * entropy(softmax(t[m] / temperature), softmax(s[m] / temperature))
        for sample_s, sample_t, m in zip(student, teacher, mask, strict=True)
        if m.any()
        for s, t in zip(sample_s, sample_t, strict=True)
    ]
    loss = channel_wise_kl(*case[:2], temperature=temperature, mask=case[2])
    assert loss.item() == pytest.approx(np.mean(expected) if expected else 0.0, rel=1e-7, abs=1e-9)


@given(cases(), temperatures)
def test_is_zero_at_equality_and_not_negative(case, temperature):
    student, teacher, mask = case
    assert channel_wise_kl(teacher, teacher, temperature=temperature, mask=mask).item() == 0.0
    assert channel_wise_kl(student, teacher, temperature=temperature, mask=mask).item() >= -1e-9


@given(cases(), st.floats(-50, 50))
def test_ignores_a_constant_added_to_a_channel(case, shift):
    student, teacher, _ = case
    student, teacher = student.clone(), teacher.clone()
    before = channel_wise_kl(student, teacher)
    student[:, 0] += shift
    teacher[:, 1] -= shift
    assert_close(channel_wise_kl(student, teacher), before, rtol=1e-9, atol=1e-9)


@given(cases(), st.randoms(use_true_random=False))
def test_ignores_the_order_of_channels_and_positions(case, random):
    student, teacher = (feature.flatten(2) for feature in case[:2])
    channels = random.sample(range(student.shape[1]), student.shape[1])
    positions = random.sample(range(student.shape[2]), student.shape[2])
    moved = (feature[:, channels][:, :, positions] for feature in (student, teacher))
    assert_close(channel_wise_kl(*moved), channel_wise_kl(*case[:2]), **EXACT)


@given(cases())
def test_reductions_agree(case):
    student, teacher, mask = case
    each = channel_wise_kl(student, teacher, mask=mask, reduction="none")
    assert each.shape == student.shape[:2]
    assert_close(channel_wise_kl(student, teacher, mask=mask, reduction="sum"), each.sum(), **EXACT)
    unmasked = channel_wise_kl(student, teacher, reduction="none")
    assert_close(channel_wise_kl(student, teacher), unmasked.mean(), **EXACT)


@given(cases())
def test_a_mask_of_all_positions_changes_nothing(case):
    student, teacher, mask = case
    everything = torch.ones_like(mask)
    assert_close(channel_wise_kl(student, teacher, mask=everything), channel_wise_kl(student, teacher), **EXACT)


@given(cases())
def test_positions_left_out_influence_neither_value_nor_gradient(case):
    student, teacher, mask = case
    student, moved = (s.clone().requires_grad_() for s in (student, student + 7.0 * ~mask.unsqueeze(1)))
    losses = [channel_wise_kl(s, teacher, mask=mask) for s in (student, moved)]
    torch.stack(losses).sum().backward()
    assert_close(losses[0], losses[1], **EXACT)
    assert_close(student.grad, moved.grad, **EXACT)
    assert (student.grad.masked_fill(mask.unsqueeze(1), 0.0) == 0).all()
    assert student.grad.isfinite().all()


def test_a_sample_without_a_position_that_counts_is_left_out_of_the_mean():
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64).unbind()
    mask = torch.ones(2, 2, 2, dtype=torch.bool)
    mask[1] = False
    assert_close(channel_wise_kl(student, teacher, mask=mask), channel_wise_kl(student[:1], teacher[:1]), **EXACT)


def test_is_a_zero_with_gradient_where_nothing_counts():
    student = MS.clone().requires_grad_()
    loss = channel_wise_kl(student, MT, mask=torch.zeros(1, 2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert (student.grad == 0).all()


def test_has_an_exact_gradient():
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64).unbind()
    mask = torch.tensor([[[True, False], [True, True]], [[False, False], [False, False]]])
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: channel_wise_kl(s, teacher, temperature=2.0), student)
    assert torch.autograd.gradcheck(lambda s: channel_wise_kl(s, teacher, mask=mask), student)


def test_gives_the_teacher_no_gradient():
    student, teacher = MS.clone().requires_grad_(), MT.clone().requires_grad_()
    channel_wise_kl(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize(("samples", "channels"), [(1, 3), (4, 3), (1, 1000)])
def test_equals_itself_under_bfloat16_autocast(samples, channels):
    student, teacher = torch.randn(2, samples, channels, 4, 4).unbind()
    student.requires_grad_()
    expected = channel_wise_kl(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = channel_wise_kl(student, teacher)
    loss.backward()
    assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    assert channel_wise_kl(MS.to(given_dtype), MT.to(given_dtype)).dtype == returned


def test_is_finite_at_extreme_scores():
    student = (1e4 * MS.float()).requires_grad_()
    loss = channel_wise_kl(student, -1e4 * MT.float())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_module_computes_the_function():
    module, mask = ChannelWiseKL(temperature=2.0, reduction="sum"), MS[:, 0] > 0
    assert module(MS, MT) == channel_wise_kl(MS, MT, temperature=2.0, reduction="sum")
    assert module(MS, MT, mask) == channel_wise_kl(MS, MT, temperature=2.0, mask=mask, reduction="sum")
    assert repr(module) == "ChannelWiseKL(temperature=2.0, reduction='sum')"


def test_refuses_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"got \(1, 2, 2, 2\) and \(1, 1, 2, 2\)"):
        channel_wise_kl(MS, MT[:, :1])
    with pytest.raises(ShapeError, match=r"must have a grid after \(N, C\), got shape \(2, 3\)"):
        channel_wise_kl(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"boolean of shape \(1, 2, 2\), got torch\.bool of shape \(1, 1, 2, 2\)"):
        channel_wise_kl(MS, MT, mask=MS[:, :1] > 0)
    with pytest.raises(ShapeError, match=r"boolean of shape \(1, 2, 2\), got torch\.float64 of shape \(1, 2, 2\)"):
        channel_wise_kl(MS, MT, mask=MS[:, 0])
    with pytest.raises(TypeError, match=r"`teacher_logits` must be a floating-point tensor, got torch\.int64"):
        channel_wise_kl(MS, MT.long())


def test_refuses_options_out_of_range():
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0\.0"):
        channel_wise_kl(MS, MT, temperature=0.0)
    with pytest.raises(ValueError, match=r"got -1\.0"):
        ChannelWiseKL(temperature=-1.0)
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'batch'"):
        ChannelWiseKL(reduction="batch")

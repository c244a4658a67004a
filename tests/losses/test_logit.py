"""Claims about `soft_target_kl`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import ClassMeanKL, SoftTargetKL, class_mean_kl, soft_target_kl, standardize_logits

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

shapes = st.tuples(st.integers(1, 4), st.integers(2, 6))
temperatures = st.sampled_from([0.5, 1.0, 4.0, 20.0])


@st.composite
def logit_pairs(draw):
    shape = draw(shapes)
    values = arrays(np.float64, shape, elements=st.floats(-20, 20, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def reference(student, teacher, temperature):
    """Sum of p log p/q per row, in NumPy."""
    log_q, log_p = (log_softmax(z.numpy() / temperature, axis=-1) for z in (student, teacher))
    return torch.from_numpy(temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=-1))


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 0.1231441658), (2.0, 0.2159588393), (4.0, 0.2451207613)])
def test_equals_the_published_values(temperature, expected):
    assert soft_target_kl(ZS, ZT, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_equals_the_hand_derived_value():
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2 = 3/4 log 3 - log 2
    teacher = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    loss = soft_target_kl(torch.zeros(1, 2, dtype=torch.float64), teacher, temperature=1.0)
    assert loss.item() == pytest.approx(0.75 * np.log(3.0) - np.log(2.0), rel=1e-12)


@given(logit_pairs(), temperatures)
def test_equals_the_reference(pair, temperature):
    loss = soft_target_kl(*pair, temperature=temperature, reduction="none")
    assert_close(loss, reference(*pair, temperature), rtol=1e-9, atol=1e-9)


@given(logit_pairs(), temperatures)
def test_is_not_negative(pair, temperature):
    assert (soft_target_kl(*pair, temperature=temperature, reduction="none") >= -1e-9).all()


@given(logit_pairs(), temperatures)
def test_is_zero_when_student_equals_teacher(pair, temperature):
    assert soft_target_kl(pair[1], pair[1], temperature=temperature).item() == 0.0


@given(logit_pairs(), st.floats(-50, 50), st.floats(-50, 50))
def test_ignores_a_constant_added_to_all_logits(pair, student_shift, teacher_shift):
    student, teacher = pair
    assert_close(
        soft_target_kl(student + student_shift, teacher + teacher_shift), soft_target_kl(student, teacher), **EXACT
    )


@given(logit_pairs(), st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_classes(pair, random):
    student, teacher = pair
    order = random.sample(range(student.shape[1]), student.shape[1])
    assert_close(soft_target_kl(student[:, order], teacher[:, order]), soft_target_kl(student, teacher), **EXACT)


@given(logit_pairs())
def test_reductions_agree(pair):
    each = soft_target_kl(*pair, reduction="none")
    assert each.shape == pair[0].shape[:-1]
    assert_close(soft_target_kl(*pair, reduction="mean"), each.mean(), **EXACT)
    assert_close(soft_target_kl(*pair, reduction="sum"), each.sum(), **EXACT)


@given(logit_pairs())
def test_batch_is_the_mean_of_its_items(pair):
    items = [soft_target_kl(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(soft_target_kl(*pair), torch.stack(items).mean(), **EXACT)


def test_averages_over_every_leading_axis():
    student, teacher = torch.randn(2, 3, 5, 7, dtype=torch.float64).chunk(2, dim=0)
    flat = soft_target_kl(student.flatten(0, 2), teacher.flatten(0, 2))
    assert_close(soft_target_kl(student, teacher), flat, **EXACT)


def test_gradient_at_high_temperature_is_the_difference_of_centred_logits():
    # Hinton et al., equation 4: T² KL has gradient (z_s - z_t) / C per sample for zero-mean logits and large T.
    student, teacher = (z - z.mean(dim=1, keepdim=True) for z in (ZS, ZT))
    student.requires_grad_()
    soft_target_kl(student, teacher, temperature=1e4, reduction="sum").backward()
    assert_close(student.grad, (student.detach() - teacher) / 3, rtol=1e-3, atol=0.0)


def test_gradient_is_the_difference_of_the_distributions():
    # d/dz_s [T² KL] = T (q - p), averaged over the batch of 2
    student = ZS.clone().requires_grad_()
    soft_target_kl(student, ZT, temperature=3.0).backward()
    assert_close(student.grad, 3.0 * (torch.softmax(ZS / 3, 1) - torch.softmax(ZT / 3, 1)) / 2, **EXACT)


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    assert soft_target_kl(ZS.to(given_dtype), ZT.to(given_dtype)).dtype == returned


def test_half_inputs_give_the_loss_of_their_rounded_values():
    student, teacher = torch.randn(2, 4, 1000).to(torch.bfloat16).unbind()
    expected = reference(student.double(), teacher.double(), 4.0).mean()
    assert soft_target_kl(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gives_the_teacher_no_gradient():
    student, teacher = ZS.clone().requires_grad_(), ZT.clone().requires_grad_()
    soft_target_kl(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_is_finite_at_the_extremes_of_half_precision(dtype):
    student = torch.tensor([[6e4, -6e4, 0.0]], dtype=dtype, requires_grad=True)
    loss = soft_target_kl(student, torch.tensor([[-6e4, 6e4, 0.0]], dtype=dtype), temperature=1.0)
    loss.backward()
    # The teacher is certain of a class whose student score is 120000 below the best.
    best, target, _ = student.detach()[0].float()
    assert loss.item() == pytest.approx((best - target).item(), rel=1e-6)
    assert student.grad.isfinite().all()


def test_a_class_the_teacher_masks_contributes_nothing():
    student = torch.cat([ZS, torch.full((2, 1), -torch.inf)], dim=1).requires_grad_()
    loss = soft_target_kl(student, torch.cat([ZT, torch.full((2, 1), -torch.inf)], dim=1))
    loss.backward()
    assert_close(loss, soft_target_kl(ZS, ZT), **EXACT)
    assert student.grad.isfinite().all()


def test_equals_itself_under_bfloat16_autocast():
    student, teacher = torch.randn(2, 8, 1000).unbind()
    expected = soft_target_kl(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(soft_target_kl(student, teacher), expected, rtol=1e-6, atol=0.0)


def test_takes_a_batch_of_one_and_a_thousand_classes():
    student, teacher = torch.randn(2, 1, 1000, dtype=torch.float64).unbind()
    assert_close(soft_target_kl(student, teacher), reference(student, teacher, 4.0).mean(), **EXACT)


def test_module_computes_the_function():
    module = SoftTargetKL(temperature=2.0, reduction="none")
    assert_close(module(ZS, ZT), soft_target_kl(ZS, ZT, temperature=2.0, reduction="none"), rtol=0.0, atol=0.0)
    assert repr(module) == "SoftTargetKL(temperature=2.0, reduction='none')"


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_temperature_that_is_not_above_zero(temperature):
    with pytest.raises(ValueError, match=rf"`temperature` must be a finite number above 0, got {temperature}"):
        soft_target_kl(ZS, ZT, temperature=temperature)
    with pytest.raises(ValueError, match=rf"got {temperature}"):
        SoftTargetKL(temperature=temperature)


def test_refuses_another_label_set():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 2\)"):
        soft_target_kl(ZS, ZT[:, :2])


def test_refuses_an_empty_batch():
    with pytest.raises(ShapeError, match=r"`student_logits` must not be empty, got shape \(0, 3\)"):
        soft_target_kl(ZS[:0], ZT[:0])


def test_refuses_integer_scores():
    with pytest.raises(TypeError, match=r"`teacher_logits` must be a floating-point tensor, got torch\.int64"):
        soft_target_kl(ZS, ZT.long())


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum', 'none', got 'batchmean'"):
        soft_target_kl(ZS, ZT, reduction="batchmean")
    with pytest.raises(ValueError, match="got 'batchmean'"):
        SoftTargetKL(reduction="batchmean")


def test_a_temperature_that_learns_gets_the_gradient_of_the_whole_loss():
    temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    loss = soft_target_kl(ZS, ZT, temperature=temperature)
    loss.backward()
    assert_close(loss.detach(), soft_target_kl(ZS, ZT, temperature=3.0), **EXACT)
    step = 1e-5
    above, below = (soft_target_kl(ZS, ZT, temperature=3.0 + sign * step) for sign in (1, -1))
    assert temperature.grad.item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-6)


@pytest.mark.parametrize("temperature", [torch.tensor([2.0]), torch.tensor(2)])
def test_refuses_a_temperature_that_is_no_floating_scalar(temperature):
    with pytest.raises(
        ShapeError,
        match=rf"`temperature` must be .* got {temperature.dtype} of shape \({'1,' if temperature.ndim else ''}\)",
    ):
        soft_target_kl(ZS, ZT, temperature=temperature)


def test_the_mean_over_classes_equals_the_published_value():
    # 0.2387504206 at T = 3 as a sum over the 3 classes
    assert class_mean_kl(ZS, ZT, temperature=3.0).item() == pytest.approx(0.0795834735, rel=1e-8)
    assert soft_target_kl(ZS, ZT, temperature=3.0).item() == pytest.approx(0.2387504206, rel=1e-8)


@given(logit_pairs(), temperatures, st.sampled_from(["mean", "sum", "none"]))
def test_the_mean_over_classes_is_the_sum_over_their_number(pair, temperature, reduction):
    options = {"temperature": temperature, "reduction": reduction}
    assert_close(class_mean_kl(*pair, **options) * pair[0].shape[1], soft_target_kl(*pair, **options), **EXACT)


def test_the_module_of_the_mean_over_classes_computes_the_function():
    module = ClassMeanKL(temperature=2.0, reduction="sum")
    assert module(ZS, ZT) == class_mean_kl(ZS, ZT, temperature=2.0, reduction="sum")
    assert repr(module) == "ClassMeanKL(temperature=2.0, reduction='sum')"


def test_standardised_logits_give_the_published_value():
    loss = soft_target_kl(standardize_logits(ZS), standardize_logits(ZT), temperature=2.0)
    assert loss.item() == pytest.approx(0.0676022600, rel=1e-8)


@given(logit_pairs())
def test_standardised_logits_equal_the_reference(pair):
    z = pair[0].numpy()
    expected = (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) + 1e-7)
    assert_close(standardize_logits(pair[0]), torch.from_numpy(expected), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("factor", "shift"), [(0.1, 5.0), (3.0, -40.0), (1.0, 7.0)])
def test_standardised_logits_ignore_scale_and_shift(factor, shift):
    # Up to the 1e-7 beside standard deviations of about 1.
    logits = torch.randn(5, 10, dtype=torch.float64)
    assert_close(standardize_logits(factor * logits + shift), standardize_logits(logits), rtol=3e-6, atol=3e-6)


def test_equal_scores_standardise_to_zeros_with_a_finite_gradient():
    logits = torch.full((2, 4), 3.0, requires_grad=True)
    standard = standardize_logits(logits)
    soft_target_kl(standard, torch.randn(2, 4)).backward()
    assert standard.eq(0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "returned"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_standardised_logits_are_at_least_single(dtype, returned):
    assert standardize_logits(ZS.to(dtype)).dtype == returned


def test_refuses_to_standardise_what_has_no_spread():
    with pytest.raises(ShapeError, match=r"at least 2 classes apart, got shape \(4, 1\)"):
        standardize_logits(torch.zeros(4, 1))
    with pytest.raises(TypeError, match=r"`logits` must be a floating-point tensor, got torch\.int64"):
        standardize_logits(torch.zeros(4, 3).long())

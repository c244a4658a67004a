"""Claims about `soft_cross_entropy`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import SoftCrossEntropy, soft_cross_entropy, soft_target_kl

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

shapes = st.tuples(st.integers(1, 4), st.integers(2, 6))


@st.composite
def logit_pairs(draw):
    shape = draw(shapes)
    values = arrays(np.float64, shape, elements=st.floats(-20, 20, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def test_equals_the_published_value():
    assert soft_cross_entropy(ZS, ZT).item() == pytest.approx(0.6003117542, rel=1e-9)


def test_over_the_classes_too_it_is_the_published_prediction_loss_of_tinybert():
    assert (soft_cross_entropy(ZS, ZT) / 3).item() == pytest.approx(0.2001039181, rel=1e-9)


@given(logit_pairs(), st.sampled_from([0.5, 1.0, 4.0]))
def test_exceeds_the_divergence_by_the_teachers_entropy(pair, temperature):
    student, teacher = pair
    p = np.exp(teacher.numpy() / temperature - (teacher.numpy() / temperature).max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    entropy = torch.from_numpy(-(p * np.log(np.maximum(p, 1e-300))).sum(axis=1))
    divergence = soft_target_kl(student, teacher, temperature=temperature, reduction="none") / temperature**2
    loss = soft_cross_entropy(student, teacher, temperature=temperature, reduction="none")
    assert_close(loss, divergence + entropy, rtol=1e-9, atol=1e-9)


@given(logit_pairs())
def test_has_no_gradient_at_equality(pair):
    student = pair[1].clone().requires_grad_()
    soft_cross_entropy(student, pair[1]).backward()
    assert_close(student.grad, torch.zeros_like(student), rtol=0.0, atol=1e-12)


@given(logit_pairs(), st.floats(-50, 50), st.floats(-50, 50))
def test_ignores_a_constant_added_to_all_logits(pair, student_shift, teacher_shift):
    student, teacher = pair
    shifted = soft_cross_entropy(student + student_shift, teacher + teacher_shift)
    assert_close(shifted, soft_cross_entropy(student, teacher), **EXACT)


@given(logit_pairs())
def test_reductions_agree(pair):
    each = soft_cross_entropy(*pair, reduction="none")
    assert each.shape == pair[0].shape[:-1]
    assert_close(soft_cross_entropy(*pair), each.mean(), **EXACT)
    assert_close(soft_cross_entropy(*pair, reduction="sum"), each.sum(), **EXACT)


def test_a_class_the_teacher_masks_contributes_nothing():
    student = torch.cat([ZS, torch.full((2, 1), -torch.inf)], dim=1).requires_grad_()
    loss = soft_cross_entropy(student, torch.cat([ZT, torch.full((2, 1), -torch.inf)], dim=1))
    loss.backward()
    assert_close(loss, soft_cross_entropy(ZS, ZT), **EXACT)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("batch", [1, 8])
def test_is_finite_with_a_thousand_classes_under_bfloat16_autocast(batch):
    student, teacher = torch.randn(2, batch, 1000).unbind()
    expected = soft_cross_entropy(student, teacher)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = soft_cross_entropy(student, teacher)
    loss.backward()
    assert_close(loss.detach(), expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("given_dtype", "returned"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_promotes_half_and_keeps_double(given_dtype, returned):
    assert soft_cross_entropy(ZS.to(given_dtype), ZT.to(given_dtype)).dtype == returned


def test_gives_the_teacher_no_gradient():
    student, teacher = ZS.clone().requires_grad_(), ZT.clone().requires_grad_()
    soft_cross_entropy(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_module_computes_the_function():
    module = SoftCrossEntropy(temperature=2.0, reduction="sum")
    assert module(ZS, ZT) == soft_cross_entropy(ZS, ZT, temperature=2.0, reduction="sum")
    assert repr(module) == "SoftCrossEntropy(temperature=2.0, reduction='sum')"


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 2\)"):
        soft_cross_entropy(ZS, ZT[:, :2])
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0\.0"):
        SoftCrossEntropy(temperature=0.0)
    with pytest.raises(ValueError, match="got 'batchmean'"):
        soft_cross_entropy(ZS, ZT, reduction="batchmean")

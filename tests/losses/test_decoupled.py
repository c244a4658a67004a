"""Claims about `decoupled_kl` and `normalized_cross_entropy`; those that all losses on scores share: test_scores.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.losses import (
    DecoupledKL,
    NormalizedCrossEntropy,
    decoupled_kl,
    normalized_cross_entropy,
    soft_target_kl,
)

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])
EXACT = {"rtol": 1e-9, "atol": 1e-12}

temperatures = st.sampled_from([0.5, 1.0, 3.0, 4.0])


@st.composite
def cases(draw):
    rows, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    values = arrays(np.float64, (2, rows, classes), elements=st.floats(-10, 10, width=32))
    student, teacher = torch.from_numpy(draw(values)).unbind()
    return student, teacher, torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))


def softmax(scores):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def entropies(student, teacher, target, temperature):
    """Per sample, with plain loops: KL of target against rest, KL and cross-entropy of the rest, -p_t log p_s at 1."""
    rows = []
    for z_s, z_t, y in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        p_s, p_t = softmax(z_s / temperature), softmax(z_t / temperature)
        b_s, b_t = np.array([p_s[y], 1 - p_s[y]]), np.array([p_t[y], 1 - p_t[y]])
        n_s, n_t = np.delete(p_s, y) / np.delete(p_s, y).sum(), np.delete(p_t, y) / np.delete(p_t, y).sum()
        at_target = -softmax(z_t)[y] * np.log(softmax(z_s)[y])
        rows.append(((b_t * np.log(b_t / b_s)).sum(), (n_t * np.log(n_t / n_s)).sum(), -(n_t * np.log(n_s)).sum()))
        rows[-1] += (at_target,)
    return torch.tensor(rows, dtype=torch.float64).unbind(dim=1)


@pytest.mark.parametrize(
    ("temperature", "alpha", "beta", "expected"),
    [
        (4.0, 1.0, 0.0, 0.1804109430),
        (4.0, 0.0, 1.0, 0.1202389231),
        (4.0, 1.0, 8.0, 1.1423223277),
        (1.0, 1.0, 1.0, 0.2070820611),
    ],
)
def test_decoupled_equals_the_published_values(temperature, alpha, beta, expected):
    loss = decoupled_kl(ZS, ZT, Y, temperature=temperature, alpha=alpha, beta=beta)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_normalized_equals_the_published_values():
    assert normalized_cross_entropy(ZS, ZT, Y, gamma=0.0).item() == pytest.approx(0.3516106045, rel=1e-9)
    assert normalized_cross_entropy(ZS, ZT, Y).item() == pytest.approx(1.3854842755, rel=1e-9)


@given(cases(), temperatures)
def test_decoupled_equals_the_reference(case, temperature):
    binary, others, _, _ = entropies(*case, temperature)
    loss = decoupled_kl(*case, temperature=temperature, alpha=0.7, beta=3.0, reduction="none")
    assert_close(loss, temperature**2 * (0.7 * binary + 3.0 * others), rtol=1e-6, atol=1e-9)


@given(cases(), temperatures)
def test_normalized_equals_the_reference(case, temperature):
    _, _, others, at_target = entropies(*case, temperature)
    loss = normalized_cross_entropy(*case, temperature=temperature, gamma=1.2, reduction="none")
    assert_close(loss, at_target + 1.2 * temperature**2 * others, rtol=1e-9, atol=1e-9)


@given(cases())
def test_the_decoupled_parts_add_up_to_the_kl_divergence(case):
    # KL = target part + (1 - p_y of the teacher) * rest, at temperature 1
    student, teacher, target = case
    parts = [
        decoupled_kl(*case, temperature=1.0, alpha=alpha, beta=1.0 - alpha, reduction="none") for alpha in (1.0, 0.0)
    ]
    rest = 1.0 - teacher.softmax(dim=1).gather(1, target[:, None])[:, 0]
    whole = soft_target_kl(student, teacher, temperature=1.0, reduction="none")
    assert_close(parts[0] + rest * parts[1], whole, rtol=1e-9, atol=1e-10)


def test_two_classes_have_no_rest():
    student, teacher = torch.randn(2, 4, 2, dtype=torch.float64).unbind()
    target = torch.tensor([0, 1, 1, 0])
    assert decoupled_kl(student, teacher, target, alpha=0.0).item() == 0.0
    whole = soft_target_kl(student, teacher, temperature=3.0)
    assert_close(decoupled_kl(student, teacher, target, temperature=3.0), whole, **EXACT)


def test_the_rest_ignores_the_score_of_the_target():
    moved = ZS.clone()
    moved[range(2), Y] += 5.0
    assert_close(decoupled_kl(moved, ZT, Y, alpha=0.0), decoupled_kl(ZS, ZT, Y, alpha=0.0), **EXACT)


def test_scores_of_tens_of_thousands_stay_exact():
    # Where a target pushed down by 1000 would still win. Student: the others are even, the teacher prefers the first.
    student = torch.tensor([[2e4, 0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[2e4, np.log(3.0), 0.0]], dtype=torch.float64)
    loss = decoupled_kl(student, teacher, torch.tensor([0]), temperature=1.0, alpha=0.0, beta=1.0)
    assert loss.item() == pytest.approx(0.75 * np.log(3.0) - np.log(2.0), rel=1e-9)


@given(cases(), temperatures)
def test_normalized_has_no_gradient_at_the_rest_when_student_equals_teacher(case, temperature):
    _, teacher, target = case
    student = teacher.clone().requires_grad_()
    whole = normalized_cross_entropy(student, teacher, target, temperature=temperature, gamma=2.0)
    head = normalized_cross_entropy(student, teacher, target, temperature=temperature, gamma=0.0)
    (gradient,) = torch.autograd.grad(whole - head, student)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0.0, atol=1e-9)


def test_normalized_is_the_weighted_cross_entropy_at_the_target():
    # gamma = 0 and a certain teacher: the ordinary cross-entropy
    certain = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0]], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(ZS, Y)
    assert_close(normalized_cross_entropy(ZS, certain, Y, gamma=0.0), expected, **EXACT)


def test_small_integer_targets_are_class_indices():
    assert decoupled_kl(ZS, ZT, Y.to(torch.uint8)) == decoupled_kl(ZS, ZT, Y)


def test_refuses_options_out_of_range():
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got 0\.0"):
        decoupled_kl(ZS, ZT, Y, temperature=0.0)
    with pytest.raises(ValueError, match=r"`alpha` must be a finite number of at least 0, got -1\.0"):
        decoupled_kl(ZS, ZT, Y, alpha=-1.0)
    with pytest.raises(ValueError, match=r"`beta` must be .* got nan"):
        DecoupledKL(beta=float("nan"))
    with pytest.raises(ValueError, match=r"`gamma` must be .* got -0\.5"):
        normalized_cross_entropy(ZS, ZT, Y, gamma=-0.5)
    with pytest.raises(ValueError, match=r"`temperature` must be .* got inf"):
        NormalizedCrossEntropy(temperature=float("inf"))

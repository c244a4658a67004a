"""Claims about `one_for_all`; those that all losses on scores share: test_scores.py."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax
from torch.testing import assert_close

from lightning_kd.losses import OneForAll, one_for_all, soft_cross_entropy

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])
EXACT = {"rtol": 1e-9, "atol": 1e-12}

exponents = st.sampled_from([0.5, 1.0, 1.2, 1.5, 3.0])
temperatures = st.sampled_from([0.5, 1.0, 4.0])
variants = st.sampled_from(["code", "paper"])


@st.composite
def cases(draw):
    rows, classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    values = arrays(np.float64, (2, rows, classes), elements=st.floats(-10, 10, width=32))
    student, teacher = torch.from_numpy(draw(values)).unbind()
    return student, teacher, torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))


def reference(student, teacher, target, exponent, temperature, variant):
    """One class of one sample at a time, in NumPy."""
    total = 0.0
    for z_s, z_t, right in zip(student.numpy(), teacher.numpy(), target.tolist(), strict=True):
        log_q, p = log_softmax(z_s / temperature), np.exp(log_softmax(z_t / temperature))
        for index in range(len(p)):
            if index == right:
                weight = (1 + p[index]) ** exponent - (1 if variant == "code" else 0)
            else:
                weight = p[index] ** exponent if variant == "code" else p[index]
            total -= weight * log_q[index]
    return total / len(target)


@pytest.mark.parametrize(
    ("variant", "exponent", "expected"),
    [
        ("code", 1.0, 0.6003117543),
        ("code", 1.2, 0.6065658346),
        ("code", 1.5, 0.7042385062),
        ("paper", 1.0, 1.0324544085),
        ("paper", 1.5, 1.3048902825),
    ],
)
def test_equals_the_published_values(variant, exponent, expected):
    assert one_for_all(ZS, ZT, Y, exponent=exponent, variant=variant).item() == pytest.approx(expected, rel=1e-9)


def test_has_the_published_gradient():
    student = ZS.clone().requires_grad_()
    one_for_all(student, ZT, Y, exponent=1.5).backward()
    expected = [[-0.17679159, 0.14454029, 0.0322513], [0.10609323, -0.28912433, 0.1830311]]
    assert_close(student.grad, torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=5e-9)


def test_the_gradient_shows_the_enhanced_targets():
    # d/dz of -sum t log softmax(z) is softmax(z) * sum t - t; at z = 0 with three classes that is sum t / 3 - t.
    student = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    one_for_all(student, ZT, Y, exponent=1.5, reduction="sum").backward()
    targets = torch.tensor(
        [[1.69425459, 0.01006364, 0.00224550], [0.07068288, 1.34716725, 0.01577148]], dtype=torch.float64
    )
    assert_close(student.grad, targets.mean(dim=1, keepdim=True) - targets, rtol=0.0, atol=1e-8)


@given(cases(), exponents, temperatures, variants)
def test_equals_the_reference(case, exponent, temperature, variant):
    loss = one_for_all(*case, exponent=exponent, temperature=temperature, variant=variant)
    assert loss.item() == pytest.approx(reference(*case, exponent, temperature, variant), rel=1e-9, abs=1e-12)


@given(cases(), temperatures)
def test_without_enhancement_it_is_the_soft_cross_entropy(case, temperature):
    student, teacher, target = case
    loss = one_for_all(student, teacher, target, exponent=1.0, temperature=temperature)
    assert_close(loss, soft_cross_entropy(student, teacher, temperature=temperature), **EXACT)


@given(cases())
def test_without_enhancement_the_gradient_is_zero_at_equality(case):
    _, teacher, target = case
    student = teacher.clone().requires_grad_()
    one_for_all(student, teacher, target, exponent=1.0).backward()
    assert_close(student.grad, torch.zeros_like(teacher), rtol=0.0, atol=1e-10)


@given(cases())
def test_a_larger_exponent_weighs_the_target_more(case):
    student, teacher, target = case
    uniform = torch.zeros_like(student)
    losses = [one_for_all(uniform, teacher, target, exponent=g, variant="paper").item() for g in (1.0, 1.5, 3.0)]
    assert losses == sorted(losses)


@pytest.mark.parametrize("call", [lambda **options: one_for_all(ZS, ZT, Y, **options), OneForAll])
def test_refuses_options_out_of_range(call):
    with pytest.raises(ValueError, match=r"`exponent` must be a finite number above 0, got 0\.0"):
        call(exponent=0.0)
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number above 0, got nan"):
        call(temperature=float("nan"))
    with pytest.raises(ValueError, match="`variant` must be one of 'code', 'paper', got 'text'"):
        call(variant="text")

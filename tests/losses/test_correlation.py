"""Claims about `class_correlation`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import ClassCorrelation, class_correlation

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3], [-0.5, 0.2, 1.5], [1.0, -1.0, 0.0]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5], [-1.0, 0.0, 2.0], [0.2, 0.1, 0.0]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def logit_pairs(draw):
    shape = draw(st.tuples(st.integers(3, 6), st.integers(2, 6)))
    seed = draw(st.integers(0, 2**16))
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=2.0, size=(2, *shape))).unbind()


def reference(student, teacher, temperature):
    """The two parts from NumPy's correlation coefficients, without the epsilon."""
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (student, teacher))
    inter = 1 - np.mean([np.corrcoef(*rows)[0, 1] for rows in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(*columns)[0, 1] for columns in zip(p.T, q.T, strict=True)])
    return temperature**2 * inter, temperature**2 * intra


@pytest.mark.parametrize(
    ("temperature", "inter", "intra"), [(1.0, 0.0855873387, 0.1154803398), (4.0, 2.5615067322, 3.2002710007)]
)
def test_equals_the_published_values(temperature, inter, intra):
    parts = [class_correlation(ZS, ZT, temperature=temperature, inter=a, intra=1.0 - a).item() for a in (1.0, 0.0)]
    assert parts == pytest.approx([inter, intra], rel=1e-9)
    assert class_correlation(ZS, ZT, temperature=temperature).item() == pytest.approx(inter + intra, rel=1e-9)


@given(logit_pairs(), st.sampled_from([1.0, 4.0]))
def test_equals_the_reference(pair, temperature):
    inter, intra = reference(*pair, temperature)
    loss = class_correlation(*pair, temperature=temperature, inter=2.0, intra=3.0)
    assert loss.item() == pytest.approx(2 * inter + 3 * intra, rel=1e-4, abs=1e-4)


@given(logit_pairs())
def test_is_zero_at_equality_up_to_its_epsilon_and_never_negative(pair):
    student, teacher = pair
    assert class_correlation(teacher, teacher, temperature=1.0).item() == pytest.approx(0.0, abs=1e-4)
    assert class_correlation(student, teacher).item() >= 0.0


def test_has_no_gradient_at_equality():
    # But for the 1e-8: the fourth sample, almost flat, is left out.
    student = ZT[:3].clone().requires_grad_()
    class_correlation(student, ZT[:3], temperature=1.0).backward()
    assert_close(student.grad, torch.zeros_like(student), rtol=0.0, atol=1e-6)


@given(logit_pairs(), st.floats(-50, 50))
def test_ignores_a_constant_added_to_all_scores(pair, shift):
    student, teacher = pair
    assert_close(
        class_correlation(student + shift, teacher - shift), class_correlation(student, teacher), rtol=1e-6, atol=1e-9
    )


@given(logit_pairs(), st.randoms(use_true_random=False))
def test_ignores_the_order_of_samples_and_classes(pair, random):
    rows, columns = (random.sample(range(n), n) for n in pair[0].shape)
    moved = (z[rows][:, columns] for z in pair)
    assert_close(class_correlation(*moved), class_correlation(*pair), **EXACT)


def test_follows_a_teacher_whose_probabilities_are_a_scaled_copy():
    # Probabilities pulled half-way to the uniform ones vary alike, though far from equal.
    probabilities = ZT.softmax(dim=1)
    milder = (0.5 * probabilities + 0.5 / 3).log()
    assert class_correlation(milder, ZT, temperature=1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_dense_positions_are_samples():
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).unbind()
    flat = class_correlation(student.flatten(0, 2), teacher.flatten(0, 2))
    assert_close(class_correlation(student, teacher), flat, **EXACT)


def test_a_mask_leaves_what_it_keeps():
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).unbind()
    mask = torch.rand(2, 3, 4) > 0.4
    expected = class_correlation(student[mask], teacher[mask])
    student[~mask], teacher[~mask] = torch.nan, torch.inf
    student.requires_grad_()
    loss = class_correlation(student, teacher, mask=mask)
    loss.backward()
    assert_close(loss.detach(), expected, **EXACT)
    assert student.grad[~mask].eq(0).all()
    assert student.grad[mask].isfinite().all()


def test_nothing_that_counts_gives_a_zero_that_keeps_the_graph():
    student = ZS.clone().requires_grad_()
    loss = class_correlation(student, ZT, mask=torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.eq(0).all()


def test_a_mask_that_counts_all_changes_nothing():
    assert_close(class_correlation(ZS, ZT, mask=torch.ones(4, dtype=torch.bool)), class_correlation(ZS, ZT), **EXACT)


def test_equal_scores_have_a_finite_gradient():
    student = torch.zeros(4, 3, requires_grad=True)
    loss = class_correlation(student, torch.zeros(4, 3))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_has_an_exact_gradient_and_gives_the_teacher_none():
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(lambda s: class_correlation(s, teacher), student.requires_grad_())
    class_correlation(student, teacher.requires_grad_()).backward()
    assert teacher.grad is None


def test_is_itself_under_bfloat16_autocast_with_a_thousand_classes():
    student, teacher = torch.randn(2, 8, 1000).unbind()
    expected = class_correlation(student, teacher)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = class_correlation(student, teacher)
    loss.backward()
    assert_close(loss.detach(), expected, rtol=1e-6, atol=0.0)
    assert_close(expected.double(), class_correlation(student.detach().double(), teacher.double()), rtol=1e-4, atol=0.0)
    assert student.grad.isfinite().all()
    assert student.grad.ne(0).any()


@pytest.mark.parametrize(("dtype", "returned"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_promotes_half_and_keeps_double(dtype, returned):
    assert class_correlation(ZS.to(dtype), ZT.to(dtype)).dtype == returned


def test_the_module_computes_the_function():
    module = ClassCorrelation(temperature=2.0, inter=0.5, intra=3.0)
    mask = torch.tensor([True, True, False, True])
    assert module(ZS, ZT, mask) == class_correlation(ZS, ZT, temperature=2.0, inter=0.5, intra=3.0, mask=mask)
    assert repr(module) == "ClassCorrelation(temperature=2.0, inter=0.5, intra=3.0)"


@pytest.mark.parametrize("rows", [1, 2])
def test_refuses_fewer_than_three_samples(rows):
    with pytest.raises(ShapeError, match=rf"at least 3 samples, got {rows}: .* use a larger batch"):
        class_correlation(ZS[:rows], ZT[:rows])


def test_refuses_options_and_masks_that_do_not_fit():
    with pytest.raises(ValueError, match=r"`temperature` must be .* got 0\.0"):
        class_correlation(ZS, ZT, temperature=0.0)
    with pytest.raises(ValueError, match=r"`inter` must be .* got -1\.0"):
        ClassCorrelation(inter=-1.0)
    with pytest.raises(ValueError, match=r"`intra` must be .* got inf"):
        ClassCorrelation(intra=float("inf"))
    with pytest.raises(ShapeError, match=r"\(4, 3\) and \(4, 2\)"):
        class_correlation(ZS, ZT[:, :2])
    with pytest.raises(ShapeError, match=r"`mask` must have .* \(4,\), got \(3,\)"):
        class_correlation(ZS, ZT, mask=torch.ones(3, dtype=torch.bool))

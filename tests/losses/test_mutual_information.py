"""Claims about `mutual_information_loss`."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import MutualInformationLoss, mutual_information_loss

SCORES = torch.tensor([[2.0, 0.5, 0.0], [0.1, 1.5, -0.3], [0.0, 0.2, 1.0]], dtype=torch.float64)
ZEROS = torch.zeros(3, dtype=torch.float64)


@st.composite
def cases(draw):
    samples, seed = draw(st.integers(2, 6)), draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(scale=3.0, size=(samples, samples))), torch.from_numpy(rng.normal(size=samples))


def reference(scores, log_baseline, alpha):
    """The bound by its definition, with loops."""
    f, b = scores.numpy(), log_baseline.numpy()
    n = len(f)
    others = [[np.mean([np.exp(f[i, k]) for k in range(n) if k != j]) for j in range(n)] for i in range(n)]
    a = alpha * np.array(others) + (1 - alpha) * np.exp(b)[:, None]
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    joint = np.mean([f[i, i] - np.log(a[i, j]) for i, j in pairs])
    return 1 + joint - np.mean([np.exp(f[i, j]) / a[i, i] for i, j in pairs])


@pytest.mark.parametrize(("alpha", "bound"), [(0.0, 1.3806478054), (0.5, 0.7904737028), (1.0, 0.4621307367)])
def test_equals_the_published_values(alpha, bound):
    assert mutual_information_loss(SCORES, ZEROS, alpha=alpha).item() == pytest.approx(-bound, rel=1e-9)


@given(cases(), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_equals_the_reference(case, alpha):
    assert mutual_information_loss(*case, alpha=alpha).item() == pytest.approx(-reference(*case, alpha), rel=1e-9)


@given(cases())
def test_all_of_the_batch_needs_no_baseline_and_ignores_what_a_row_adds(case):
    scores, log_baseline = case
    expected = mutual_information_loss(scores, log_baseline, alpha=1.0)
    moved = scores + torch.randn(len(scores), 1, dtype=torch.float64)
    assert_close(mutual_information_loss(moved, log_baseline + 1.0, alpha=1.0), expected, rtol=1e-9, atol=1e-9)


@given(cases(), st.sampled_from([0.0, 0.3, 1.0]), st.randoms(use_true_random=False))
def test_ignores_the_order_of_the_samples(case, alpha, random):
    scores, log_baseline = case
    order = random.sample(range(len(scores)), len(scores))
    moved = mutual_information_loss(scores[order][:, order], log_baseline[order], alpha=alpha)
    assert_close(moved, mutual_information_loss(scores, log_baseline, alpha=alpha), rtol=1e-9, atol=1e-9)


def test_independent_samples_have_no_information():
    # Equal scores and a baseline that is their exponential's mean: 1 + 0 - 1
    for alpha in (0.0, 0.5, 1.0):
        loss = mutual_information_loss(torch.full((4, 4), 0.7), torch.full((4,), 0.7), alpha=alpha)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_has_an_exact_gradient_to_both_arguments(alpha):
    scores, log_baseline = (tensor.clone().requires_grad_() for tensor in (SCORES, ZEROS))
    assert torch.autograd.gradcheck(lambda *pair: mutual_information_loss(*pair, alpha=alpha), (scores, log_baseline))


@pytest.mark.parametrize("samples", [2, 256])
def test_is_finite_where_exponentials_overflow(samples):
    # 200 is far above the 88 that float32's exponential takes.
    scores = (200.0 * torch.eye(samples)).requires_grad_()
    for alpha in (0.0, 0.5, 1.0):
        loss = mutual_information_loss(scores, torch.zeros(samples), alpha=alpha)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_is_itself_under_bfloat16_autocast():
    scores, log_baseline = torch.randn(64, 64), torch.randn(64)
    expected = mutual_information_loss(scores, log_baseline)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(mutual_information_loss(scores, log_baseline), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("dtype", "returned"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_promotes_half_and_keeps_double(dtype, returned):
    assert mutual_information_loss(SCORES.to(dtype), ZEROS.to(dtype)).dtype == returned


def test_the_module_computes_the_function():
    module = MutualInformationLoss(alpha=0.25)
    assert module(SCORES, ZEROS) == mutual_information_loss(SCORES, ZEROS, alpha=0.25)
    assert repr(module) == "MutualInformationLoss(alpha=0.25)"


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"`scores` must be square with at least 2 samples, got shape \(2, 3\)"):
        mutual_information_loss(SCORES[:2], ZEROS[:2])
    with pytest.raises(ShapeError, match=r"got shape \(1, 1\)"):
        mutual_information_loss(SCORES[:1, :1], ZEROS[:1])
    with pytest.raises(ShapeError, match=r"`log_baseline` must have shape \(3,\), got \(2,\)"):
        mutual_information_loss(SCORES, ZEROS[:2])
    with pytest.raises(TypeError, match=r"`scores` must be a floating-point tensor, got torch\.int64"):
        mutual_information_loss(SCORES.long(), ZEROS)
    with pytest.raises(ValueError, match=r"`alpha` must be a number from 0 to 1, got 1\.5"):
        MutualInformationLoss(alpha=1.5)
    with pytest.raises(ValueError, match="got -1"):
        mutual_information_loss(SCORES, ZEROS, alpha=-1)

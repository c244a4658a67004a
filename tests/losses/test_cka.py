"""Values, gradients and laws of `cka` and its loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.losses import CKALoss, cka, cka_loss

X = torch.tensor([[1, 0], [0, 1], [1, 1], [2, -1], [0, 0]], dtype=torch.float64)
Y = torch.tensor([[1, 1, 0], [0, 2, 1], [1, 0, 1], [3, 1, -1], [0, 0, 0]], dtype=torch.float64)
UNBIASED = {"unbiased": True}
BIASED = {"unbiased": False}
RBF = {"kernel": "rbf", "unbiased": True}
BIASED_RBF = {"kernel": "rbf", "unbiased": False, "bandwidth": 0.5}
UNCENTRED = {"unbiased": False, "center": False}
CENTRED = [UNBIASED, BIASED, RBF, BIASED_RBF]
EVERY = [*CENTRED, UNCENTRED]
# Fewer samples than features go by the Gram matrices, more by the covariance.
SHAPES = [(6, 9, 11), (40, 2, 3)]

cases = pytest.mark.parametrize("options", EVERY, ids=str)
centred_cases = pytest.mark.parametrize("options", CENTRED, ids=str)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
seeds = st.integers(0, 2**32 - 1)


def random_rotation(width, seed):
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (BIASED, 0.9196875509),
        (UNBIASED, 0.7460038466),
        ({"kernel": "rbf", "unbiased": False, "bandwidth": 0.5}, 0.9775331890),
        ({"kernel": "rbf", "unbiased": False}, 0.8980154646),
        (UNCENTRED, 0.8900247335),
    ],
    ids=str,
)
def test_equals_the_published_values_on_the_small_fixture(options, expected):
    assert cka(X, Y, **options).item() == pytest.approx(expected, rel=1e-9)


def test_unbiased_value_follows_from_the_published_hsic():
    assert cka(X, Y).item() == pytest.approx(0.5333333333 / np.sqrt(0.6666666667 * 0.7666666667), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [(BIASED, 0.5576132566), (BIASED_RBF, 0.6548311823), (UNBIASED, 0.5134564895)],
    ids=str,
)
def test_equals_the_published_values_on_correlated_gaussians(correlated_gaussians, options, expected):
    assert cka(*correlated_gaussians, **options).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_unbiased_estimate_tells_unrelated_wide_features_apart():
    legacy = np.random.RandomState(0)
    student, teacher = torch.from_numpy(legacy.randn(8, 64)), torch.from_numpy(legacy.randn(8, 64))
    assert cka(student, teacher, unbiased=False).item() == pytest.approx(0.8875, abs=5e-5)
    assert cka(student, teacher).item() == pytest.approx(-0.1830, abs=5e-5)


@cases
@shapes
@given(seed=seeds)
def test_equals_the_textbook_sums(reference, random_pair, options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert cka(student, teacher, **options).item() == pytest.approx(
        reference.cka(student, teacher, options), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("options", [UNBIASED, BIASED, UNCENTRED], ids=str)
@pytest.mark.parametrize("n", [16, 17])
def test_gram_and_covariance_agree_where_one_takes_over_from_the_other(random_pair, options, n):
    # 8 features on both sides: 3 * 64 against 16 n, so covariance from n = 13 on. Columns of zeros change no product.
    student, teacher = random_pair((n, 8, 8))
    padding = torch.zeros(n, 40, dtype=torch.float64)
    padded = torch.cat([student, padding], 1), torch.cat([teacher, padding], 1)
    assert_close(cka(student, teacher, **options), cka(*padded, **options), rtol=1e-10, atol=0.0)


@cases
@shapes
@given(seed=seeds)
def test_is_one_at_equality_and_at_most_one(random_pair, options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert cka(student, student, **options).item() == pytest.approx(1.0, rel=1e-9)
    assert cka(student, teacher, **options).item() <= 1.0 + 1e-9


@pytest.mark.parametrize("options", [BIASED, BIASED_RBF, UNCENTRED], ids=str)
@shapes
@given(seed=seeds)
def test_is_not_negative_if_biased(random_pair, options, shape, seed):
    assert cka(*random_pair(shape, seed), **options).item() >= 0.0


@cases
@shapes
@given(seed=seeds)
def test_is_symmetric(random_pair, options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert_close(cka(student, teacher, **options), cka(teacher, student, **options), rtol=1e-9, atol=1e-12)


@cases
@shapes
@given(seed=seeds, scale=st.floats(0.01, 100.0), sign=st.sampled_from([-1.0, 1.0]))
def test_ignores_rotation_and_scale(random_pair, options, shape, seed, scale, sign):
    student, teacher = random_pair(shape, seed)
    turned = sign * scale * student @ random_rotation(student.shape[1], seed)
    assert_close(cka(turned, teacher, **options), cka(student, teacher, **options), rtol=1e-7, atol=1e-9)


@centred_cases
@shapes
@given(seed=seeds, shift=st.floats(-100.0, 100.0))
def test_ignores_translation_if_centred(random_pair, options, shape, seed, shift):
    student, teacher = random_pair(shape, seed)
    assert_close(cka(student + shift, teacher, **options), cka(student, teacher, **options), rtol=1e-7, atol=1e-9)


def test_depends_on_translation_if_not_centred():
    assert cka(X + 5.0, Y, **UNCENTRED) != pytest.approx(cka(X, Y, **UNCENTRED).item(), abs=0.01)


@cases
@given(seed=seeds)
def test_ignores_the_order_of_the_samples(random_pair, options, seed):
    student, teacher = random_pair((12, 5, 7), seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(12))
    assert_close(
        cka(student[order], teacher[order], **options), cka(student, teacher, **options), rtol=1e-9, atol=1e-12
    )


@cases
def test_depends_on_a_general_invertible_map(options):
    stretched = X @ torch.tensor([[10.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    assert cka(stretched, X, **options).item() < 0.95


@cases
@shapes
def test_gradient_is_exact(random_pair, options, shape):
    student, teacher = random_pair(shape)
    assert torch.autograd.gradcheck(lambda x: cka(x, teacher, **options), student.requires_grad_())


@shapes
def test_biased_linear_gradient_is_the_closed_form(random_pair, shape):
    # d CKA / dX = 2 [Lc / (|Kc| |Lc|) - CKA Kc / |Kc|²] X
    student, teacher = random_pair(shape)
    student.requires_grad_()
    value = cka(student, teacher, **BIASED)
    value.backward()
    n, x, y = len(student), student.detach().numpy(), teacher.numpy()
    h = np.eye(n) - 1 / n
    s_gram, t_gram = h @ x @ x.T @ h, h @ y @ y.T @ h
    s_norm, t_norm = np.linalg.norm(s_gram), np.linalg.norm(t_gram)
    expected = 2 * (t_gram / (s_norm * t_norm) - value.item() * s_gram / s_norm**2) @ x
    assert_close(student.grad, torch.from_numpy(expected), rtol=1e-8, atol=1e-12)


@cases
@shapes
def test_gradient_vanishes_at_equality(random_pair, options, shape):
    student, _ = random_pair(shape)
    student.requires_grad_()
    cka(student, student.detach(), **options).backward()
    assert student.grad.abs().max() < 1e-12


@cases
def test_gives_the_teacher_no_gradient(options):
    student, teacher = X.clone().requires_grad_(), Y.clone().requires_grad_()
    cka(student, teacher, **options).backward()
    assert student.grad is not None
    assert teacher.grad is None


@cases
def test_loss_is_one_minus_the_similarity(options):
    loss = CKALoss(**options)(X, Y)
    assert loss == cka_loss(X, Y, **options)
    assert loss.item() == pytest.approx(1.0 - cka(X, Y, **options).item(), rel=1e-12)


def test_loss_shows_its_options():
    assert repr(CKALoss()) == "CKALoss(kernel='linear', unbiased=True, bandwidth=None, center=True)"

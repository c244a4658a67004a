"""`cka` where it is hard: degenerate features, extreme scales, low precision, bad input."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import CKALoss, MinibatchCKA, cka

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
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.mark.parametrize(
    ("options", "value"),
    [*itertools.product(CENTRED, [0.0, 0.1, -3.7, 1e4]), (UNCENTRED, 0.0)],
    ids=str,
)
@pytest.mark.parametrize("shape", [(8, 64, 32), (64, 4, 3)], ids=str)
def test_features_without_variation_are_aligned_with_nothing(random_pair, options, value, shape):
    _, teacher = random_pair(shape, dtype=torch.float32)
    student = torch.full((shape[0], shape[1]), value, requires_grad=True)
    similarity = cka(student, teacher, **options)
    similarity.backward()
    assert similarity.item() == 0.0
    assert (student.grad == 0.0).all()
    assert cka(teacher, student.detach(), **options).item() == 0.0


@pytest.mark.parametrize("width", [4, 5])
def test_equidistant_samples_are_aligned_with_nothing_if_unbiased(width):
    # The centre of the unit vectors is as far from each of them for every pair, and nothing is left off the diagonal.
    # With 4 of the 5 dimensions of a simplex of 5 samples and one teacher feature the covariance is the smaller.
    corners = torch.eye(5) - 1 / 5
    student = corners @ torch.linalg.svd(corners)[2].T[:, :width]
    assert cka(student, torch.randn(5, 1)).item() == 0.0


@pytest.mark.parametrize("options", [BIASED, RBF], ids=str)
def test_duplicated_samples_give_finite_values_and_gradients(options):
    # More than half of the distances are 0, and so is their median.
    student = torch.tensor([[0.0, 1.0]] * 7 + [[3.0, 2.0]], requires_grad=True)
    similarity = cka(student, torch.randn(8, 3), **options)
    similarity.backward()
    assert similarity.isfinite()
    assert student.grad.isfinite().all()


def test_a_median_of_zero_leaves_a_kernel_that_tells_equal_from_different(reference):
    # 6² + 2² of the 64 distances are 0. Equal samples have kernel 1, different ones 0, as one-hot vectors have.
    student = torch.tensor([[0.0]] * 6 + [[3.0]] * 2, dtype=torch.float64)
    one_hot = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2, dtype=torch.float64)
    teacher = torch.randn(8, 3, dtype=torch.float64)
    expected = reference.alignment(reference.kernel(one_hot, UNBIASED), reference.kernel(teacher, RBF), RBF)
    assert cka(student, teacher, **RBF).item() == pytest.approx(expected, rel=1e-9)


@cases
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_is_finite_and_unchanged_at_extreme_scales_in_single_precision(random_pair, options, scale):
    for shape in SHAPES:
        student, teacher = random_pair(shape, dtype=torch.float32)
        scaled = (student * scale).requires_grad_()
        value = cka(scaled, teacher, **options)
        value.backward()
        assert_close(value, cka(student, teacher, **options), rtol=1e-3, atol=1e-4)
        assert scaled.grad.isfinite().all()


@pytest.mark.parametrize("options", [UNBIASED, BIASED], ids=str)
@shapes
def test_keeps_its_precision_far_from_the_origin(random_pair, options, shape):
    student, teacher = random_pair(shape)
    single = cka(student.float() + 1000.0, teacher.float(), **options)
    # Single precision keeps 6e-5 of a unit at 1000.
    assert single.item() == pytest.approx(cka(student, teacher, **options).item(), abs=1e-3)


@cases
@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(options, given_dtype, returned):
    value = cka(X.to(given_dtype), Y.to(given_dtype), **options)
    assert value.dtype == returned
    # The fixture's small integers are exact in half precision.
    assert value.item() == pytest.approx(cka(X, Y, **options).item(), rel=1e-5)


@cases
@shapes
def test_equals_itself_under_bfloat16_autocast(random_pair, options, shape):
    student, teacher = random_pair(shape, dtype=torch.float32)
    expected = cka(student, teacher, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(cka(student, teacher, **options), expected, rtol=1e-6, atol=1e-7)


@cases
@shapes
def test_not_a_number_stays_not_a_number(random_pair, options, shape):
    student, teacher = random_pair(shape)
    student[0, 0] = torch.nan
    assert cka(student, teacher, **options).isnan()
    assert cka(teacher, student, **options).isnan()


@pytest.mark.parametrize(
    ("options", "least", "message"),
    [
        (UNBIASED, 4, "at least 4 samples for unbiased CKA, got 3; use a larger batch or unbiased=False"),
        (BIASED, 3, "at least 3 samples for biased CKA, got 2; use a larger batch"),
        (UNCENTRED, 2, "at least 2 samples for biased CKA, got 1; use a larger batch"),
    ],
    ids=str,
)
def test_refuses_too_few_samples(random_pair, options, least, message):
    student, teacher = random_pair((least, 3, 4))
    assert cka(student, teacher, **options).isfinite()
    with pytest.raises(ShapeError, match=f"`student` must have {message}"):
        cka(student[:-1], teacher[:-1], **options)


def test_refuses_features_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"`teacher` must have shape \(samples, features\), got \(5, 3, 1\)"):
        cka(X, Y[..., None])
    with pytest.raises(ShapeError, match="must have the same samples, got 5 and 4 rows"):
        cka(X, Y[:4])
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(5, 0\)"):
        cka(X[:, :0], Y)
    with pytest.raises(TypeError, match=r"`student` must be a floating-point tensor, got torch\.int64"):
        cka(X.long(), Y)


@pytest.mark.parametrize("make", [lambda **options: cka(X, Y, **options), CKALoss, MinibatchCKA])
def test_refuses_options_that_do_not_exist_or_contradict_each_other(make):
    with pytest.raises(ValueError, match="`kernel` must be one of 'linear', 'rbf', got 'cosine'"):
        make(kernel="cosine")
    with pytest.raises(ValueError, match=r"`bandwidth` must be a finite number above 0, got 0\.0"):
        make(kernel="rbf", bandwidth=0.0)
    with pytest.raises(ValueError, match=r"`bandwidth` must be left out with kernel='linear', got 0\.5"):
        make(bandwidth=0.5)


def test_refuses_an_unbiased_uncentred_estimate():
    with pytest.raises(ValueError, match="`unbiased` must be False with center=False, got True"):
        cka(X, Y, center=False)

"""Claims about `cka`, its loss and its minibatch form."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import CKALoss, MinibatchCKA, cka, cka_loss

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


def random_pair(shape, seed=0, dtype=torch.float64):
    n, student_width, teacher_width = shape
    rng = np.random.default_rng(seed)
    student = rng.normal(size=(n, student_width))
    teacher = rng.normal(size=(n, teacher_width)) + student @ rng.normal(size=(student_width, teacher_width))
    return torch.tensor(student, dtype=dtype), torch.tensor(teacher, dtype=dtype)


def random_rotation(width, seed):
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0])


def reference_kernel(features, options):
    features = features.numpy()
    if options.get("kernel") != "rbf":
        return features @ features.T
    distances = squareform(pdist(features, "sqeuclidean"))
    return np.exp(-distances / (2 * options.get("bandwidth", 1.0) ** 2 * np.median(distances)))


def reference_hsic(left, right, options):
    """The textbook sums: traces with an explicit centring matrix; Song et al.'s three terms for the unbiased form."""
    n = len(left)
    if not options.get("center", True):
        return np.trace(left @ right)
    if not options["unbiased"]:
        h = np.eye(n) - 1 / n
        return np.trace(left @ h @ right @ h)
    left, right = (kernel - np.diag(np.diag(kernel)) for kernel in (left, right))
    one = np.ones(n)
    totals = (one @ left @ one) * (one @ right @ one) / ((n - 1) * (n - 2))
    return (np.trace(left @ right) + totals - 2 / (n - 2) * (one @ left @ right @ one)) / (n * (n - 3))


def reference_cka(student, teacher, options):
    return reference_alignment(reference_kernel(student, options), reference_kernel(teacher, options), options)


def reference_alignment(left, right, options):
    between, of_left, of_right = (
        reference_hsic(*pair, options) for pair in ((left, right), (left, left), (right, right))
    )
    return between / np.sqrt(of_left * of_right)


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
def test_equals_the_published_values_on_correlated_gaussians(options, expected):
    assert cka(*correlated_gaussians(), **options).item() == pytest.approx(expected, rel=1e-9)


def correlated_gaussians():
    legacy = np.random.RandomState(1337)
    student = legacy.randn(100, 10)
    return torch.from_numpy(student), torch.from_numpy(legacy.randn(100, 10) + student)


def test_only_the_unbiased_estimate_tells_unrelated_wide_features_apart():
    legacy = np.random.RandomState(0)
    student, teacher = torch.from_numpy(legacy.randn(8, 64)), torch.from_numpy(legacy.randn(8, 64))
    assert cka(student, teacher, unbiased=False).item() == pytest.approx(0.8875, abs=5e-5)
    assert cka(student, teacher).item() == pytest.approx(-0.1830, abs=5e-5)


@cases
@shapes
@given(seed=seeds)
def test_equals_the_textbook_sums(options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert cka(student, teacher, **options).item() == pytest.approx(
        reference_cka(student, teacher, options), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("options", [UNBIASED, BIASED, UNCENTRED], ids=str)
@pytest.mark.parametrize("n", [16, 17])
def test_gram_and_covariance_agree_where_one_takes_over_from_the_other(options, n):
    # 8 features on both sides: 3 * 64 against 16 n, so covariance from n = 13 on. Columns of zeros change no product.
    student, teacher = random_pair((n, 8, 8))
    padding = torch.zeros(n, 40, dtype=torch.float64)
    padded = torch.cat([student, padding], 1), torch.cat([teacher, padding], 1)
    assert_close(cka(student, teacher, **options), cka(*padded, **options), rtol=1e-10, atol=0.0)


@cases
@shapes
@given(seed=seeds)
def test_is_one_at_equality_and_at_most_one(options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert cka(student, student, **options).item() == pytest.approx(1.0, rel=1e-9)
    assert cka(student, teacher, **options).item() <= 1.0 + 1e-9


@pytest.mark.parametrize("options", [BIASED, BIASED_RBF, UNCENTRED], ids=str)
@shapes
@given(seed=seeds)
def test_is_not_negative_if_biased(options, shape, seed):
    assert cka(*random_pair(shape, seed), **options).item() >= 0.0


@cases
@shapes
@given(seed=seeds)
def test_is_symmetric(options, shape, seed):
    student, teacher = random_pair(shape, seed)
    assert_close(cka(student, teacher, **options), cka(teacher, student, **options), rtol=1e-9, atol=1e-12)


@cases
@shapes
@given(seed=seeds, scale=st.floats(0.01, 100.0), sign=st.sampled_from([-1.0, 1.0]))
def test_ignores_rotation_and_scale(options, shape, seed, scale, sign):
    student, teacher = random_pair(shape, seed)
    turned = sign * scale * student @ random_rotation(student.shape[1], seed)
    assert_close(cka(turned, teacher, **options), cka(student, teacher, **options), rtol=1e-7, atol=1e-9)


@centred_cases
@shapes
@given(seed=seeds, shift=st.floats(-100.0, 100.0))
def test_ignores_translation_if_centred(options, shape, seed, shift):
    student, teacher = random_pair(shape, seed)
    assert_close(cka(student + shift, teacher, **options), cka(student, teacher, **options), rtol=1e-7, atol=1e-9)


def test_depends_on_translation_if_not_centred():
    assert cka(X + 5.0, Y, **UNCENTRED) != pytest.approx(cka(X, Y, **UNCENTRED).item(), abs=0.01)


@cases
@given(seed=seeds)
def test_ignores_the_order_of_the_samples(options, seed):
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
def test_gradient_is_exact(options, shape):
    student, teacher = random_pair(shape)
    assert torch.autograd.gradcheck(lambda x: cka(x, teacher, **options), student.requires_grad_())


@shapes
def test_biased_linear_gradient_is_the_closed_form(shape):
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
def test_gradient_vanishes_at_equality(options, shape):
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


@pytest.mark.parametrize(
    ("options", "value"),
    [*itertools.product(CENTRED, [0.0, 0.1, -3.7, 1e4]), (UNCENTRED, 0.0)],
    ids=str,
)
@pytest.mark.parametrize("shape", [(8, 64, 32), (64, 4, 3)], ids=str)
def test_features_without_variation_are_aligned_with_nothing(options, value, shape):
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


def test_a_median_of_zero_leaves_a_kernel_that_tells_equal_from_different():
    # 6² + 2² of the 64 distances are 0. Equal samples have kernel 1, different ones 0, as one-hot vectors have.
    student = torch.tensor([[0.0]] * 6 + [[3.0]] * 2, dtype=torch.float64)
    one_hot = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2, dtype=torch.float64)
    teacher = torch.randn(8, 3, dtype=torch.float64)
    expected = reference_alignment(reference_kernel(one_hot, UNBIASED), reference_kernel(teacher, RBF), RBF)
    assert cka(student, teacher, **RBF).item() == pytest.approx(expected, rel=1e-9)


@cases
@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
def test_is_finite_and_unchanged_at_extreme_scales_in_single_precision(options, scale):
    for shape in SHAPES:
        student, teacher = random_pair(shape, dtype=torch.float32)
        scaled = (student * scale).requires_grad_()
        value = cka(scaled, teacher, **options)
        value.backward()
        assert_close(value, cka(student, teacher, **options), rtol=1e-3, atol=1e-4)
        assert scaled.grad.isfinite().all()


@pytest.mark.parametrize("options", [UNBIASED, BIASED], ids=str)
@shapes
def test_keeps_its_precision_far_from_the_origin(options, shape):
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
def test_equals_itself_under_bfloat16_autocast(options, shape):
    student, teacher = random_pair(shape, dtype=torch.float32)
    expected = cka(student, teacher, **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(cka(student, teacher, **options), expected, rtol=1e-6, atol=1e-7)


@cases
@shapes
def test_not_a_number_stays_not_a_number(options, shape):
    student, teacher = random_pair(shape)
    student[0, 0] = torch.nan
    assert cka(student, teacher, **options).isnan()
    assert cka(teacher, student, **options).isnan()


@cases
def test_loss_is_one_minus_the_similarity(options):
    loss = CKALoss(**options)(X, Y)
    assert loss == cka_loss(X, Y, **options)
    assert loss.item() == pytest.approx(1.0 - cka(X, Y, **options).item(), rel=1e-12)


def test_loss_shows_its_options():
    assert repr(CKALoss()) == "CKALoss(kernel='linear', unbiased=True, bandwidth=None, center=True)"


@pytest.mark.parametrize(
    ("options", "least", "message"),
    [
        (UNBIASED, 4, "at least 4 samples for unbiased CKA, got 3; use a larger batch or unbiased=False"),
        (BIASED, 3, "at least 3 samples for biased CKA, got 2; use a larger batch"),
        (UNCENTRED, 2, "at least 2 samples for biased CKA, got 1; use a larger batch"),
    ],
    ids=str,
)
def test_refuses_too_few_samples(options, least, message):
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


@pytest.mark.parametrize(("unbiased", "expected"), [(True, 0.5132675064), (False, 0.6548042002)])
def test_minibatches_give_the_published_values(unbiased, expected):
    similarity = MinibatchCKA(unbiased=unbiased)
    for student, teacher in zip(*(x.split(25) for x in correlated_gaussians()), strict=True):
        similarity.update([student], [teacher])
    assert similarity.compute().item() == pytest.approx(expected, rel=1e-9)
    assert similarity.samples == 100


@centred_cases
@given(seed=seeds)
def test_minibatches_sum_each_hsic_by_its_pairs(options, seed):
    rng = np.random.default_rng(seed)
    students, teachers = (
        [torch.from_numpy(rng.normal(size=(22, d))) for d in widths] for widths in ((3, 9), (5, 2, 8))
    )
    similarity = MinibatchCKA(**options)
    sums = np.zeros((3, 2, 3))
    for rows in (slice(0, 6), slice(6, 18), slice(18, 22)):  # of different sizes
        s, t = [x[rows] for x in students], [x[rows] for x in teachers]
        similarity.update(s, t)
        n = len(s[0])
        pairs = n * (n - 3) if options["unbiased"] else 1
        kernels = [[reference_kernel(x, options) for x in layers] for layers in (s, t)]
        for (i, left), (j, right) in itertools.product(*map(enumerate, kernels)):
            hsic = [reference_hsic(*pair, options) for pair in ((left, right), (left, left), (right, right))]
            sums[:, i, j] += np.array(hsic) * pairs
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    np.testing.assert_allclose(similarity.compute().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_one_minibatch_gives_the_plain_value():
    similarity = MinibatchCKA()
    similarity.update([X, Y], [X, Y])
    value = cka(X, Y).item()
    expected = torch.tensor([[1.0, value], [value, 1.0]], dtype=torch.float64)
    assert_close(similarity.compute(), expected, rtol=1e-9, atol=0.0)


def test_unbiased_minibatches_agree_with_the_whole_where_biased_ones_do_not():
    rng = np.random.default_rng(0)
    student, teacher = (torch.from_numpy(rng.normal(size=(4096, 32))) for _ in range(2))
    values = {}
    for unbiased in (True, False):
        similarity = MinibatchCKA(unbiased=unbiased)
        for s, t in zip(student.split(16), teacher.split(16), strict=True):
            similarity.update([s], [t])
        values[unbiased] = similarity.compute().item()
    # Independent features: the truth is 0. Batches of 16 samples of 32 features look alike to the biased estimate.
    assert abs(values[True]) < 0.02
    assert values[False] > 0.5


def test_minibatches_keep_no_graph_and_compute_in_double():
    similarity = MinibatchCKA()
    similarity.update([X.float().requires_grad_()], [Y.float()])
    assert not similarity.compute().requires_grad
    assert similarity.compute().dtype == torch.float64


def test_a_constant_layer_has_similarity_zero_in_minibatches():
    similarity = MinibatchCKA()
    similarity.update([torch.full((5, 3), 0.1), X.float()], [Y.float()])
    assert similarity.compute()[0, 0].item() == 0.0
    assert similarity.compute()[1, 0].item() == pytest.approx(cka(X, Y).item(), rel=1e-5)


def test_minibatches_refuse_what_does_not_fit():
    similarity = MinibatchCKA()
    with pytest.raises(ShapeError, match="at least one batch, got none"):
        similarity.compute()
    with pytest.raises(ShapeError, match="got 0 and 1 layers"):
        similarity.update([], [Y])
    with pytest.raises(ShapeError, match=r"on \[4, 5\] samples"):
        similarity.update([X[:4]], [Y])
    with pytest.raises(ShapeError, match="`features` must have at least 4 samples for unbiased CKA, got 3"):
        similarity.update([X[:3]], [Y[:3]])
    similarity.update([X], [Y])
    with pytest.raises(ShapeError, match=r"layers of the batches before, \(1, 1\), got \(2, 1\)"):
        similarity.update([X, X], [Y])

"""Claims about the losses on relations inside a sample: ICKD between channels, and similarity between patches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    InterChannelCorrelation,
    PatchSimilarity,
    _rows,
    inter_channel_correlation,
    patch_similarity,
    similarity_preserving,
)

BOTH = [inter_channel_correlation, patch_similarity]
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def reference_correlation(student, teacher):
    """One value per sample, from the cosines of the channels: a row of the matrix over its length."""
    values = []
    for s, t in zip(student.flatten(2).numpy(), teacher.flatten(2).numpy(), strict=True):
        grams = (np.einsum("ip,jp->ij", x, x) for x in (s, t))
        of_student, of_teacher = (gram / np.linalg.norm(gram, axis=1)[:, None] for gram in grams)
        values.append(np.linalg.norm(of_student - of_teacher) ** 2 / len(s))
    return torch.tensor(values)


def reference_similarity(student, teacher):
    pairs = zip(student.flatten(2).mT.numpy(), teacher.flatten(2).mT.numpy(), strict=True)
    return torch.tensor([np.mean((cdist(s, s, "cosine") - cdist(t, t, "cosine")) ** 2) for s, t in pairs])


@st.composite
def map_pairs(draw):
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        *draw(st.sampled_from([(1, 1), (2, 3), (4,), (2, 1, 2)])),
    )
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=16))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


def random_maps(dtype=torch.float64, shape=(3, 4, 5, 3)):
    return torch.randn(2, *shape, dtype=dtype).unbind()


@pytest.mark.parametrize(("loss", "reference"), [(BOTH[0], reference_correlation), (BOTH[1], reference_similarity)])
@pytest.mark.parametrize("shape", [(3, 4, 5, 3), (1, 1, 2, 2), (2, 100, 3, 3), (2, 6, 9), (3, 5, 2)])
def test_equals_the_definition(loss, reference, shape):
    student, teacher = random_maps(shape=shape)
    assert_close(loss(student, teacher, reduction="none"), reference(student, teacher), **EXACT)


def test_correlation_of_the_transposed_batch_is_similarity_preserving():
    # SP relates rows of one (N, d) matrix as ICKD relates the C rows of a sample, and divides by N² instead of C.
    student, teacher = random_maps(shape=(7, 5))
    assert_close(inter_channel_correlation(student[None], teacher[None]) / 7, similarity_preserving(student, teacher))


def test_correlation_takes_channels_without_a_grid():
    student, teacher = random_maps(shape=(3, 4))
    expected = inter_channel_correlation(student[..., None], teacher[..., None])
    assert_close(inter_channel_correlation(student, teacher), expected, **EXACT)


def test_the_grids_of_correlation_and_the_widths_of_similarity_may_differ():
    student, teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 7, dtype=torch.float64)
    for s, t in ((student, teacher), (student[..., :1, :1], teacher)):  # by channels, and by positions
        assert_close(inter_channel_correlation(s, t, reduction="none"), reference_correlation(s, t), **EXACT)
    assert patch_similarity(torch.randn(2, 3, 4, 4), torch.randn(2, 5, 4, 4)) > 0


@pytest.mark.parametrize("loss", BOTH)
@given(pair=map_pairs())
def test_is_zero_at_equality_and_finite_for_any_map(loss, pair):
    student = pair[0].clone().requires_grad_()
    value = loss(student, pair[1])
    value.backward()
    assert loss(pair[1], pair[1]).item() == pytest.approx(0.0, abs=1e-14)
    assert -1e-14 <= value.item() <= 4.0 + 1e-14
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", BOTH)
@given(pair=map_pairs())
def test_reductions_agree_and_a_batch_is_the_mean_of_its_items(loss, pair):
    each = loss(*pair, reduction="none")
    assert each.shape == pair[0].shape[:1]
    assert_close(loss(*pair), each.mean(), **EXACT)
    assert_close(loss(*pair, reduction="sum"), each.sum(), **EXACT)
    items = [loss(s[None], t[None]) for s, t in zip(*pair, strict=True)]
    assert_close(torch.stack(items), each, **EXACT)


@pytest.mark.parametrize("loss", BOTH)
def test_ignores_the_scale_of_either_side(loss):
    student, teacher = random_maps()
    assert_close(loss(3.0 * student, 0.5 * teacher), loss(student, teacher), **EXACT)


def test_correlation_ignores_the_order_of_positions_and_similarity_a_rotation_of_channels():
    student, teacher = random_maps()
    assert_close(
        inter_channel_correlation(student.flip(2), teacher), inter_channel_correlation(student, teacher), **EXACT
    )
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    rotated = torch.einsum("nchw,cd->ndhw", student, rotation)
    assert_close(patch_similarity(rotated, teacher), patch_similarity(student, teacher), **EXACT)


def test_of_many_positions_evenly_spaced_ones_count():
    student, teacher = random_maps(shape=(2, 3, 10))
    # At most 4 of 10: every third, which are 0, 3, 6 and 9.
    expected = patch_similarity(student[..., ::3], teacher[..., ::3])
    assert_close(patch_similarity(student, teacher, max_positions=4), expected, **EXACT)
    assert patch_similarity(*random_maps(shape=(1, 2, 64, 64))).isfinite()


@pytest.mark.parametrize("loss", BOTH)
def test_does_not_depend_on_the_chunks(loss, monkeypatch):
    student, teacher = random_maps()
    student.requires_grad_()
    expected = loss(student, teacher)
    (gradient,) = torch.autograd.grad(expected, student)
    monkeypatch.setattr(_rows, "CHUNK_ELEMENTS", 1)
    value = loss(student, teacher)
    assert_close(value, expected, **EXACT)
    assert_close(torch.autograd.grad(value, student)[0], gradient, **EXACT)


@pytest.mark.parametrize("loss", BOTH)
def test_has_an_exact_gradient_and_gives_the_teacher_none(loss):
    student, teacher = (x.requires_grad_() for x in random_maps())
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("loss", BOTH)
def test_equals_itself_under_bfloat16_autocast_at_batch_one(loss):
    student, teacher = random_maps(torch.float32, (1, 200, 6, 6))
    student.requires_grad_()
    expected = loss(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
    value.backward()
    assert_close(value, expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", BOTH)
@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(loss, given_dtype, returned):
    assert loss(*random_maps(given_dtype)).dtype == returned


@pytest.mark.parametrize("loss", BOTH)
def test_dead_channels_and_positions_get_a_bounded_gradient(loss):
    student, teacher = random_maps()
    student[:, 0] = 0.0
    student[..., 0, 0] = 0.0
    loss(student.requires_grad_(), teacher).backward()
    assert student.grad.abs().max() < 10.0


def test_modules_compute_the_functions():
    student, teacher = random_maps()
    correlation, similarity = InterChannelCorrelation(reduction="sum"), PatchSimilarity(max_positions=5)
    assert correlation(student, teacher) == inter_channel_correlation(student, teacher, reduction="sum")
    assert similarity(student, teacher) == patch_similarity(student, teacher, max_positions=5)
    assert repr(correlation) == "InterChannelCorrelation(reduction='sum')"
    assert repr(similarity) == "PatchSimilarity(max_positions=5, reduction='mean')"


def test_refuses_what_does_not_fit():
    student = torch.randn(2, 3, 4, 4)
    with pytest.raises(ShapeError, match="equally many channels, got 3 and 5"):
        inter_channel_correlation(student, torch.randn(2, 5, 4, 4))
    with pytest.raises(ShapeError, match=r"on one grid, got \(2, 3, 4, 4\) and \(2, 3, 4, 5\)"):
        patch_similarity(student, torch.randn(2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"on one grid, got \(2, 3\) and \(2, 3\)"):
        patch_similarity(student[..., 0, 0], student[..., 0, 0])
    for loss in BOTH:
        with pytest.raises(ShapeError, match=r"the same samples, got \(2, 3, 4, 4\) and \(1, 3, 4, 4\)"):
            loss(student, student[:1])
        with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 3, 4, 4\)"):
            loss(student[:0], student[:0])
        with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
            loss(student, student.long())


def test_refuses_options_out_of_range():
    student = torch.randn(2, 3, 4, 4)
    for refuse in (PatchSimilarity, lambda **options: patch_similarity(student, student, **options)):
        with pytest.raises(ValueError, match="`max_positions` must be at least 2, got 1"):
            refuse(max_positions=1)
        with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'batch'"):
            refuse(reduction="batch")
    for refuse in (InterChannelCorrelation, lambda **options: inter_channel_correlation(student, student, **options)):
        with pytest.raises(ValueError, match="got 'batch'"):
            refuse(reduction="batch")

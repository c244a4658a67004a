"""Claims about `selective_pixel_kl` and `selective_region_cosine`."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import SelectivePixelKL, SelectiveRegionCosine, selective_pixel_kl, selective_region_cosine

EXACT = {"rtol": 1e-9, "atol": 1e-12}
IGNORED = 255


def scene(seed, *, classes=3, grid=(4, 6), samples=2, ignored=0.3):
    """Two networks' logits and a mask in which some pixels have no label; the last sample has none at all."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (3 * torch.randn(2, samples, classes, *grid, generator=generator, dtype=torch.float64)).unbind()
    labels = torch.randint(classes, (samples, *grid), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = IGNORED
    if samples > 1:
        labels[-1] = IGNORED
    return a, b, labels


def features(seed, *, widths=(3, 3), grids=((4, 6), (8, 5)), samples=2):
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(widths, grids, strict=True)
    return [torch.randn(samples, width, *grid, generator=generator, dtype=torch.float64) for width, grid in pairs]


def log_softmax(scores):
    shifted = scores - scores.max()
    return shifted - math.log(np.exp(shifted).sum())


def loop_over_pixels(student, teacher, labels):
    """The definition, pixel by pixel."""
    total, labelled = 0.0, 0
    for sample, row, column in np.ndindex(*labels.shape):
        label = labels[sample, row, column]
        if label == IGNORED:
            continue
        labelled += 1
        q, p = (log_softmax(x[sample, :, row, column]) for x in (student, teacher))
        if p[label] > q[label]:
            total += (np.exp(p) * (p - q)).sum()
    return total / max(labelled, 1)


def loop_over_regions(student, teacher, logits, labels, regions):
    """The definition, region by region, with grids that divide evenly."""
    total, counted = 0.0, 0
    for sample, row, column in np.ndindex(len(labels), regions, regions):

        def cell(x, sample=sample, row=row, column=column):
            height, width = x.shape[-2] // regions, x.shape[-1] // regions
            return x[sample, ..., row * height : (row + 1) * height, column * width : (column + 1) * width]

        here = cell(labels)
        if (here == IGNORED).all():
            continue
        counted += 1
        errors = [
            np.mean([-log_softmax(cell(x)[:, i, j])[here[i, j]] for i, j in np.argwhere(here != IGNORED)])
            for x in logits
        ]
        if errors[1] < errors[0]:
            s, t = cell(student).mean((1, 2)), cell(teacher).mean((1, 2))
            total += 1 - s @ t / np.linalg.norm(s) / np.linalg.norm(t)
    return total / max(counted, 1)


@given(st.integers(0, 10_000))
def test_pixels_equal_a_loop_over_the_definition(seed):
    a, b, labels = scene(seed)
    expected = loop_over_pixels(a.numpy(), b.numpy(), labels.numpy())
    assert selective_pixel_kl(a, b, labels).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


@given(st.integers(0, 10_000))
def test_regions_equal_a_loop_over_the_definition(seed):
    a, b, labels = scene(seed)
    s, t = features(seed, grids=((4, 6), (8, 2)))
    expected = loop_over_regions(s.numpy(), t.numpy(), (a.numpy(), b.numpy()), labels.numpy(), 2)
    assert selective_region_cosine(s, t, a, b, labels, regions=2).item() == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10_000))
def test_two_peers_share_the_pixels_between_them(seed):
    # Each labelled pixel that tells the peers apart is in one of the two losses; exchanging the peers exchanges them.
    a, b, labels = scene(seed)
    to_a, to_b = (selective_pixel_kl(*pair, labels, reduction="none") for pair in ((a, b), (b, a)))
    assert bool(((to_a > 0) ^ (to_b > 0))[labels != IGNORED].all())
    assert bool((to_a + to_b)[labels == IGNORED].eq(0).all())


@given(st.integers(0, 10_000))
def test_equal_cross_entropy_transfers_nothing(seed):
    a, _, labels = scene(seed)
    s, t = features(seed)
    assert selective_pixel_kl(a, a + 2.0**-3, labels).item() < 1e-15
    assert selective_pixel_kl(a, a, labels).item() == 0.0
    assert selective_region_cosine(s, t, a, a, labels, regions=2).item() == 0.0


@given(st.integers(0, 10_000))
def test_equal_features_differ_in_no_region(seed):
    a, b, labels = scene(seed)
    s, _ = features(seed)
    assert selective_region_cosine(s, s, a, b, labels, regions=3).item() == 0.0


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_names_of_the_classes_do_not_matter(seed, random):
    a, b, labels = scene(seed)
    s, t = features(seed)
    order = torch.tensor(random.sample(range(3), 3))
    renamed = torch.where(labels == IGNORED, IGNORED, order.argsort()[labels.clamp(max=2)])
    assert_close(selective_pixel_kl(a[:, order], b[:, order], renamed), selective_pixel_kl(a, b, labels), **EXACT)
    assert_close(
        selective_region_cosine(s, t, a[:, order], b[:, order], renamed, regions=2),
        selective_region_cosine(s, t, a, b, labels, regions=2),
        **EXACT,
    )


@given(st.integers(0, 10_000))
def test_logits_of_ignored_pixels_do_not_matter(seed):
    a, b, labels = scene(seed)
    s, t = features(seed)
    noise = 100 * (labels == IGNORED)[:, None] * torch.randn_like(a)
    assert_close(selective_pixel_kl(a + noise, b - noise, labels), selective_pixel_kl(a, b, labels), **EXACT)
    assert_close(
        selective_region_cosine(s, t, a + noise, b - noise, labels, regions=2),
        selective_region_cosine(s, t, a, b, labels, regions=2),
        **EXACT,
    )


def test_reductions_agree_on_labelled_pixels():
    a, b, labels = scene(0)
    values = selective_pixel_kl(a, b, labels, reduction="none")
    assert values.shape == labels.shape
    assert_close(selective_pixel_kl(a, b, labels, reduction="sum"), values.sum(), **EXACT)
    assert_close(selective_pixel_kl(a, b, labels), values.sum() / (labels != IGNORED).sum(), **EXACT)


def test_a_mask_without_labels_gives_a_zero_with_a_graph():
    a, b, labels = scene(0)
    s, t = features(0)
    a.requires_grad_(), s.requires_grad_()
    labels.fill_(IGNORED)
    loss = selective_pixel_kl(a, b, labels) + selective_region_cosine(s, t, a, b, labels, regions=2)
    loss.backward()
    assert loss.item() == 0.0
    assert a.grad.eq(0).all()
    assert s.grad.eq(0).all()


def test_another_index_may_mark_pixels_without_a_label():
    a, b, labels = scene(0)
    s, t = features(0)
    other = torch.where(labels == IGNORED, -100, labels)
    assert_close(selective_pixel_kl(a, b, other, ignore_index=-100), selective_pixel_kl(a, b, labels), **EXACT)
    assert_close(
        selective_region_cosine(s, t, a, b, other, regions=2, ignore_index=-100),
        selective_region_cosine(s, t, a, b, labels, regions=2),
        **EXACT,
    )


def test_masks_may_be_bytes():
    a, b, labels = scene(0)
    assert_close(selective_pixel_kl(a, b, labels.byte()), selective_pixel_kl(a, b, labels), **EXACT)


@pytest.mark.parametrize("grid", [(), (5,), (4, 6)])
def test_certain_mixed_labels_are_class_indices(grid):
    a, b, labels = scene(1, grid=grid, samples=1, ignored=0.0)
    mixed = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    assert selective_pixel_kl(a, b, labels) + selective_pixel_kl(b, a, labels) > 0
    assert_close(selective_pixel_kl(a, b, mixed), selective_pixel_kl(a, b, labels), **EXACT)


def test_only_the_student_gets_a_gradient():
    a, b, labels = scene(0)
    s, t = features(0)
    for tensor in (a, b, s, t):
        tensor.requires_grad_()
    selective_pixel_kl(a, b, labels).backward()
    assert bool(a.grad.ne(0).any())
    assert b.grad is None
    a.grad = None
    selective_region_cosine(s, t, a, b, labels, regions=2).backward()
    assert bool(s.grad.ne(0).any())
    assert t.grad is None
    assert a.grad is None
    assert b.grad is None


def test_both_have_an_exact_gradient():
    a, b, labels = scene(0)
    s, t = features(0)
    assert torch.autograd.gradcheck(lambda x: selective_pixel_kl(x, b, labels), a.requires_grad_())
    a = a.detach()
    assert torch.autograd.gradcheck(
        lambda x: selective_region_cosine(x, t, a, b, labels, regions=2), s.requires_grad_()
    )


@pytest.mark.parametrize(("classes", "samples"), [(3, 2), (1000, 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_values_and_gradients_are_finite_under_autocast(classes, samples, dtype):
    a, b, _ = (x.to(dtype) for x in scene(0, classes=classes, samples=samples))
    labels = torch.randint(classes, (samples, 4, 6))
    s, t = (x.to(dtype) for x in features(0, samples=samples))
    a.requires_grad_(), s.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = (
            selective_pixel_kl(1e3 * a, 1e3 * b, labels),
            selective_region_cosine(s, t, a, b, labels, regions=2),
        )
    sum(losses).backward()
    assert all(loss.dtype == torch.float32 and bool(loss.isfinite()) for loss in losses)
    assert a.grad.isfinite().all()
    assert s.grad.isfinite().all()


def test_modules_compute_the_functions():
    a, b, labels = scene(0)
    s, t = features(0)
    other = torch.where(labels == IGNORED, -1, labels)
    pixels, regions = (
        SelectivePixelKL(ignore_index=-1, reduction="sum"),
        SelectiveRegionCosine(regions=2, ignore_index=-1),
    )
    assert pixels(a, b, other) == selective_pixel_kl(a, b, labels, reduction="sum")
    assert regions(s, t, a, b, other) == selective_region_cosine(s, t, a, b, labels, regions=2)
    assert repr(pixels) == "SelectivePixelKL(ignore_index=-1, reduction='sum')"
    assert repr(regions) == "SelectiveRegionCosine(regions=2, ignore_index=-1)"


def test_what_does_not_fit_is_refused():
    a, b, labels = scene(0)
    s, t = features(0)
    with pytest.raises(ShapeError, match=r"Logits.*got \(2, 3, 4, 6\) and \(2, 2, 4, 6\)"):
        selective_pixel_kl(a, b[:, :2], labels)
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(2, 4, 6\).*got \(2, 4, 5\)"):
        selective_pixel_kl(a, b, labels[..., :5])
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(2, 3, 4, 6\).*got \(2, 4, 6\)"):
        selective_pixel_kl(a, b, labels.float())
    with pytest.raises(TypeError, match=r"`student_logits` must be a floating-point tensor, got torch\.int64"):
        selective_pixel_kl(a.long(), b, labels)
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'batchmean'"):
        selective_pixel_kl(a, b, labels, reduction="batchmean")
    with pytest.raises(ShapeError, match=r"at least 5x5 cells.* got shape \(2, 3, 4, 6\)"):
        selective_region_cosine(s, t, a, b, labels, regions=5)
    with pytest.raises(ShapeError, match=r"must be maps.* got shape \(2, 3\)"):
        selective_region_cosine(s.mean((2, 3)), t, a, b, labels, regions=1)
    with pytest.raises(ShapeError, match=r"Regions.*got \(2, 2, 2, 2\) and \(2, 3, 2, 2\)"):
        selective_region_cosine(s[:, :2], t, a, b, labels, regions=2)
    with pytest.raises(ShapeError, match=r"Regions of logits and features.*got \(2, 2, 2\) and \(1, 2, 2\)"):
        selective_region_cosine(s[:1], t[:1], a, b, labels, regions=2)
    with pytest.raises(ValueError, match=r"`regions` must be a finite number above 0, got 0"):
        SelectiveRegionCosine(regions=0)

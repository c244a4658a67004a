"""Claims about `view_distance`."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.fft import dctn, idctn
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import ViewDistance, view_distance

MS = torch.tensor([[[[1, 2], [0, 1]], [[0, 1], [1, 0]]]], dtype=torch.float64)
MT = torch.tensor([[[[2, 0], [1, 1]], [[1, 1], [0, 2]]]], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}

views = pytest.mark.parametrize("view", ["spatial", "frequency"])


@st.composite
def map_pairs(draw):
    shape = draw(st.sampled_from([(2, 3, 2, 2), (1, 2, 3, 5), (3, 4, 2, 1)]))
    values = arrays(np.float64, (2, *shape), elements=st.floats(-4, 4, width=32))
    student, teacher = torch.from_numpy(draw(values)).unbind()
    for feature in (student, teacher):
        # Directions of vectors near zero are lost to rounding.
        assume(feature.norm(dim=1).min() > 1e-2)
        assume((feature - feature.mean(dim=(2, 3), keepdim=True)).norm(dim=1).min() > 1e-2)
    return student, teacher


def reference(student, teacher, view):
    """Two minus twice the cosine; the frequency view by the cosine transform, as published."""
    maps = [feature.numpy() for feature in (student, teacher)]
    if view == "frequency":
        spectra = [dctn(feature, axes=(2, 3), norm="ortho") for feature in maps]
        for spectrum in spectra:
            spectrum[:, :, 0, 0] = 0.0
        maps = [idctn(spectrum, axes=(2, 3), norm="ortho") for spectrum in spectra]
    s, t = maps
    cosines = (s * t).sum(1) / np.sqrt((s**2).sum(1) * (t**2).sum(1))
    return torch.from_numpy((2 - 2 * cosines).sum(axis=(1, 2)))


@pytest.mark.parametrize(
    ("view", "weight", "expected"), [("spatial", 0.08, 0.3537832989), ("frequency", 0.06, 0.7609968944)]
)
def test_equals_the_published_values(view, weight, expected):
    assert weight * view_distance(MS, MT, view=view).item() == pytest.approx(expected, rel=1e-9)


@views
@given(pair=map_pairs())
def test_equals_the_reference_by_cosine_transform(view, pair):
    assert_close(view_distance(*pair, view=view, reduction="none"), reference(*pair, view), rtol=1e-7, atol=1e-9)


@views
@given(pair=map_pairs(), scale=st.floats(0.1, 10))
def test_is_zero_for_a_multiple_of_the_teacher_and_not_negative(view, pair, scale):
    assert view_distance(scale * pair[1], pair[1], view=view).item() == pytest.approx(0.0, abs=1e-12)
    assert view_distance(*pair, view=view).item() >= 0.0


@given(map_pairs(), arrays(np.float64, (4,), elements=st.floats(-5, 5)))
def test_the_frequency_view_ignores_a_constant_of_each_channel(pair, constants):
    _, teacher = pair
    moved = teacher + torch.from_numpy(constants)[: teacher.shape[1], None, None]
    assert view_distance(moved, teacher, view="frequency").item() == pytest.approx(0.0, abs=1e-12)


@views
@given(pair=map_pairs())
def test_reductions_agree_and_a_batch_is_the_mean_of_its_items(view, pair):
    each = view_distance(*pair, view=view, reduction="none")
    items = [view_distance(s[None], t[None], view=view) for s, t in zip(*pair, strict=True)]
    assert_close(each, torch.stack(items), **EXACT)
    assert_close(view_distance(*pair, view=view), each.mean(), **EXACT)
    assert_close(view_distance(*pair, view=view, reduction="sum"), each.sum(), **EXACT)


@views
def test_is_a_sum_over_the_positions(view):
    tiled = view_distance(MS.tile(1, 1, 3, 3), MT.tile(1, 1, 3, 3), view=view)
    assert_close(tiled, 9 * view_distance(MS, MT, view=view), **EXACT)


@views
def test_has_an_exact_gradient_for_the_student_and_none_for_the_teacher(view):
    student, teacher = torch.randn(2, 2, 3, 2, 3, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(lambda s: view_distance(s, teacher, view=view), student.requires_grad_())
    view_distance(student, teacher.requires_grad_(), view=view).backward()
    assert teacher.grad is None


@views
@pytest.mark.parametrize(("batch", "channels"), [(1, 8), (2, 1000)])
def test_is_itself_under_bfloat16_autocast(view, batch, channels):
    student, teacher = torch.randn(2, batch, channels, 7, 7).unbind()
    expected = view_distance(student, teacher, view=view)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = view_distance(student, teacher, view=view)
    loss.backward()
    assert_close(loss.detach(), expected, rtol=1e-6, atol=0.0)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(dtype, returned):
    assert view_distance(MS.to(dtype), MT.to(dtype)).dtype == returned


@views
def test_a_constant_map_has_a_finite_gradient(view):
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    view_distance(student, MT.float(), view=view).backward()
    assert student.grad.isfinite().all()


def test_the_module_computes_the_function():
    module = ViewDistance(view="frequency", reduction="none")
    assert_close(module(MS, MT), view_distance(MS, MT, view="frequency", reduction="none"), rtol=0.0, atol=0.0)
    assert repr(module) == "ViewDistance(view='frequency', reduction='none')"


def test_refuses_maps_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"Maps .* got \(1, 2, 2, 2\) and \(1, 2, 2, 1\)"):
        view_distance(MS, MT[..., :1])
    with pytest.raises(ShapeError, match=r"at least one grid axis after \(N, C\), got shape \(1, 2\)"):
        view_distance(MS[..., 0, 0], MT[..., 0, 0])
    with pytest.raises(ShapeError, match=r"more than one position, got shape \(1, 2, 1, 1\)"):
        view_distance(MS[..., :1, :1], MT[..., :1, :1], view="frequency")
    with pytest.raises(ShapeError, match=r"`student` must not be empty, got shape \(0, 2, 2, 2\)"):
        view_distance(MS[:0], MT[:0])
    with pytest.raises(TypeError, match=r"`teacher` must be a floating-point tensor, got torch\.int64"):
        view_distance(MS, MT.long())


@pytest.mark.parametrize("call", [lambda **options: view_distance(MS, MT, **options), ViewDistance])
def test_refuses_unknown_options(call):
    with pytest.raises(ValueError, match="`view` must be one of 'spatial', 'frequency', got 'wavelet'"):
        call(view="wavelet")
    with pytest.raises(ValueError, match="`reduction` must be one of 'mean', 'sum', 'none', got 'batchmean'"):
        call(reduction="batchmean")

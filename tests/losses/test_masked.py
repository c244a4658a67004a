"""Claims about the losses of masked image modelling and of its distillation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    DirectionL1,
    MaskedReconstruction,
    StandardizedSmoothL1,
    direction_l1,
    masked_reconstruction,
    standardized_smooth_l1,
)

EXACT = {"rtol": 1e-9, "atol": 1e-12}
DISTANCES = [direction_l1, standardized_smooth_l1]


@st.composite
def token_pairs(draw):
    shape = draw(st.sampled_from([(4,), (2, 3), (2, 3, 4)]))
    values = arrays(np.float64, shape, elements=st.floats(-8, 8, width=16).filter(lambda value: abs(value) > 1e-2))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


@st.composite
def hidden_patches(draw):
    values = arrays(np.float64, (2, 3, 4), elements=st.floats(-8, 8, width=32))
    mask = draw(arrays(np.bool_, (2, 3)))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values)), torch.from_numpy(mask)


def reference_reconstruction(prediction, target, mask, normalize):
    """Patch by patch, in NumPy."""
    errors = []
    for p, t, hidden in zip(prediction.numpy(), target.numpy(), mask.numpy(), strict=True):
        for patch, true in zip(p[hidden], t[hidden], strict=True):
            scaled = (true - true.mean()) / np.sqrt(true.var(ddof=1) + 1e-6) if normalize else true
            errors.append(((patch - scaled) ** 2).mean())
    return np.mean(errors) if errors else 0.0


def test_direction_l1_equals_the_published_value():
    student, teacher = torch.tensor([3.0, 4.0]).double(), torch.tensor([1.0, 0.0]).double()
    assert direction_l1(student, teacher).item() == pytest.approx(0.6, rel=1e-9)


def test_smooth_l1_equals_the_published_value():
    # LN0 of [1, 2, 3, 6] is [-1.06904481, -0.53452241, 0, 1.60356722], all below beta: a quarter of its mean square.
    teacher = torch.tensor([1.0, 2.0, 3.0, 6.0]).double()
    assert standardized_smooth_l1(torch.zeros(4).double(), teacher).item() == pytest.approx(0.2499999286, rel=1e-9)


def test_smooth_l1_is_linear_beyond_beta():
    # LN0 of a constant is 0; a distance of 5 costs 5 - 2/2.
    student, teacher = torch.full((4,), 5.0).double(), torch.ones(4).double()
    assert standardized_smooth_l1(student, teacher).item() == pytest.approx(4.0, rel=1e-12)


@given(token_pairs())
def test_direction_l1_equals_the_reference(pair):
    s, t = (x.numpy() / np.linalg.norm(x.numpy(), axis=-1, keepdims=True) for x in pair)
    assert direction_l1(*pair).item() == pytest.approx(np.abs(s - t).mean(), rel=1e-9, abs=1e-9)


@given(token_pairs(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_direction_l1_ignores_the_lengths(pair, of_student, of_teacher):
    student, teacher = pair
    assert_close(direction_l1(of_student * student, of_teacher * teacher), direction_l1(student, teacher), **EXACT)


@given(token_pairs())
def test_direction_l1_is_zero_at_equality(pair):
    assert direction_l1(pair[0], pair[0]).item() == 0.0


@given(token_pairs(), st.sampled_from([0.5, 2.0]))
def test_smooth_l1_equals_the_reference(pair, beta):
    student, teacher = (x.numpy() for x in pair)
    scaled = (teacher - teacher.mean(-1, keepdims=True)) / np.sqrt(teacher.var(-1, keepdims=True) + 1e-6)
    d = np.abs(student - scaled)
    expected = np.where(d < beta, d**2 / (2 * beta), d - beta / 2).mean()
    assert standardized_smooth_l1(*pair, beta=beta).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(token_pairs(), st.floats(0.5, 2), st.floats(-3, 3))
def test_smooth_l1_ignores_scale_and_offset_of_the_teacher(pair, scale, offset):
    student, teacher = pair
    # Not exact: the epsilon on the variance is not scaled along.
    teacher = torch.arange(teacher.numel()).double().reshape(teacher.shape)
    moved = standardized_smooth_l1(student, scale * teacher + offset)
    assert_close(moved, standardized_smooth_l1(student, teacher), rtol=1e-4, atol=1e-4)


def test_smooth_l1_is_zero_at_the_standardised_teacher():
    teacher = torch.randn(2, 5, 8).double()
    student = torch.nn.functional.layer_norm(teacher, (8,), eps=1e-6)
    assert standardized_smooth_l1(student, teacher).item() == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("loss", DISTANCES)
def test_tokens_and_maps_agree(loss):
    student, teacher = torch.randn(2, 2, 3, 4).double()
    assert_close(loss(student.mT, teacher.mT), loss(student, teacher, channel_axis=1), **EXACT)


@given(token_pairs(), st.sampled_from(DISTANCES))
def test_reductions_agree(pair, loss):
    each = loss(*pair, reduction="none")
    assert each.shape == pair[0].shape
    assert_close(loss(*pair), each.mean(), **EXACT)
    assert_close(loss(*pair, reduction="sum"), each.sum(), **EXACT)


@pytest.mark.parametrize("loss", DISTANCES)
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    loss(student, teacher).backward()
    assert student.grad.count_nonzero() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("loss", DISTANCES)
def test_is_the_same_and_finite_under_bfloat16_autocast(loss, batch):
    student, teacher = torch.randn(2, batch, 5, 64)
    expected = loss(student, teacher)
    student.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student, teacher)
        half = loss(student.bfloat16(), teacher.bfloat16())
    value.backward()
    assert_close(value, expected, rtol=1e-6, atol=0.0)
    assert half.dtype == torch.float32
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", DISTANCES)
def test_vectors_of_length_zero_are_finite(loss):
    student = torch.zeros(1, 4, requires_grad=True)
    value = loss(student, torch.zeros(1, 4))
    value.backward()
    assert value.item() == 0.0
    assert student.grad.isfinite().all()


@given(hidden_patches(), st.booleans())
def test_reconstruction_equals_the_reference(patches, normalize):
    expected = reference_reconstruction(*patches, normalize)
    loss = masked_reconstruction(*patches, normalize=normalize)
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(hidden_patches())
def test_visible_patches_influence_neither_value_nor_gradient(patches):
    prediction, target, mask = patches
    student = prediction.clone().requires_grad_()
    loss = masked_reconstruction(student, target, mask)
    loss.backward()
    changed = torch.where(mask[..., None], prediction, prediction + 7.0)
    assert_close(masked_reconstruction(changed, target, mask), loss.detach(), **EXACT)
    assert student.grad[~mask].count_nonzero() == 0


def test_nothing_hidden_gives_a_zero_with_a_graph():
    student = torch.randn(1, 2, 4, requires_grad=True)
    loss = masked_reconstruction(student, torch.randn(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.count_nonzero() == 0


def test_reconstruction_is_the_same_under_bfloat16_autocast_and_takes_bytes():
    prediction, mask = torch.randn(1, 9, 48), torch.rand(1, 9) < 0.75
    pixels = torch.randint(0, 256, (1, 9, 48), dtype=torch.uint8)
    expected = masked_reconstruction(prediction.double(), pixels.double(), mask).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_reconstruction(prediction, pixels, mask)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_modules_compute_the_functions():
    student, teacher = torch.randn(2, 2, 3, 4)
    mask = torch.tensor([[True, False, True]] * 2)
    assert_close(
        MaskedReconstruction(normalize=False)(student, teacher, mask),
        masked_reconstruction(student, teacher, mask, normalize=False),
    )
    direction = DirectionL1(channel_axis=1, reduction="sum")
    assert_close(direction(student, teacher), direction_l1(student, teacher, channel_axis=1, reduction="sum"))
    smooth = StandardizedSmoothL1(beta=0.5, channel_axis=1, reduction="sum")
    expected = standardized_smooth_l1(student, teacher, beta=0.5, channel_axis=1, reduction="sum")
    assert_close(smooth(student, teacher), expected)
    assert repr(MaskedReconstruction()) == "MaskedReconstruction(normalize=True)"
    assert repr(direction) == "DirectionL1(channel_axis=1, reduction='sum')"
    assert repr(smooth) == "StandardizedSmoothL1(beta=0.5, channel_axis=1, reduction='sum')"


def test_reconstruction_refuses_what_does_not_fit():
    patches, mask = torch.randn(1, 2, 4), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"\(1, 2, 4\) and \(1, 2, 3\)"):
        masked_reconstruction(patches, patches[..., :3], mask)
    with pytest.raises(ShapeError, match=r"got \(1, 2, 4\) and \(1, 1\)"):
        masked_reconstruction(patches, patches, mask[:, :1])
    with pytest.raises(ShapeError, match=r"got \(0, 2, 4\) and \(0, 2\)"):
        masked_reconstruction(patches[:0], patches[:0], mask[:0])
    with pytest.raises(ShapeError, match="at least 2 values per patch, got 1"):
        masked_reconstruction(patches[..., :1], patches[..., :1], mask)
    with pytest.raises(TypeError, match=r"`mask` must be boolean, got torch\.float32"):
        masked_reconstruction(patches, patches, mask.float())


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_refuses_a_beta_that_is_not_above_zero(beta):
    with pytest.raises(ValueError, match=f"`beta` must be a finite number above 0, got {beta}"):
        standardized_smooth_l1(torch.zeros(1, 2), torch.zeros(1, 2), beta=beta)
    with pytest.raises(ValueError, match=f"got {beta}"):
        StandardizedSmoothL1(beta=beta)


@pytest.mark.parametrize("loss", DISTANCES)
def test_refuses_shapes_that_differ_and_unknown_reductions(loss):
    with pytest.raises(ShapeError, match=r"\(1, 2\) and \(1, 3\)"):
        loss(torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="got 'batchmean'"):
        loss(torch.zeros(1, 2), torch.zeros(1, 2), reduction="batchmean")

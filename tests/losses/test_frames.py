"""Claims about losses over frames, and about what padding and lengths do to them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    FrameCosine,
    FrameL1,
    FrameMSE,
    FrameRegression,
    MaskedSpanMSE,
    frame_cosine,
    frame_l1,
    frame_mse,
    frame_regression,
    masked_span_mse,
    reduce_frames,
)

EXACT = {"rtol": 1e-9, "atol": 1e-12}
LOSSES = [frame_l1, frame_mse, frame_cosine, frame_regression]
# The oracle of the method sheet: one utterance of three frames.
STUDENT = torch.tensor([[[1.0, 0, 2], [0, 3, 4], [9, 9, 9]]]).double()
TEACHER = torch.tensor([[[1.0, 1, 0], [0, 4, 3], [0, 0, 0.1]]]).double()
FIRST_TWO = torch.tensor([[True, True, False]])


@st.composite
def batches(draw):
    """Features of two utterances of four frames, and a mask."""
    values = arrays(np.float64, (2, 4, 3), elements=st.floats(-8, 8, width=16).filter(lambda value: abs(value) > 1e-2))
    mask = arrays(np.bool_, (2, 4))
    return tuple(torch.from_numpy(draw(strategy)) for strategy in (values, values, mask))


def values_of(loss, student, teacher):
    """The value of every frame, in NumPy."""
    s, t = student.numpy(), teacher.numpy()
    cosine = (s * t).sum(-1) / (np.linalg.norm(s, axis=-1) * np.linalg.norm(t, axis=-1))
    parts = {
        frame_l1: np.abs(s - t).mean(-1),
        frame_mse: ((s - t) ** 2).mean(-1),
        frame_cosine: np.log1p(np.exp(-cosine)),
    }
    return parts[frame_l1] + parts[frame_cosine] if loss is frame_regression else parts[loss]


def reduced(values, mask, reduction):
    """Both reductions by loops."""
    rows = [row[valid] for row, valid in zip(values, mask, strict=True) if valid.any()]
    if not rows:
        return 0.0
    return np.mean(np.concatenate(rows)) if reduction == "frame" else np.mean([row.mean() for row in rows])


def test_frames_have_the_published_values():
    l1 = [frame_l1(STUDENT, TEACHER, mask=torch.arange(3)[None] == i).item() for i in range(3)]
    assert l1 == pytest.approx([1.0, 2 / 3, 8.966667], abs=1e-6)
    cosine = [frame_cosine(STUDENT, TEACHER, mask=torch.arange(3)[None] == i).item() for i in range(3)]
    assert cosine == pytest.approx([0.547482, 0.324178, 0.445573], abs=1e-6)


def test_distilhubert_has_the_published_values():
    assert frame_regression(STUDENT, TEACHER, FIRST_TWO).item() == pytest.approx(1.269162912, abs=1e-8)
    assert frame_regression(STUDENT, TEACHER).item() == pytest.approx(3.983521682, abs=1e-8)
    assert frame_regression(STUDENT, TEACHER, FIRST_TWO, kind="negative").item() == pytest.approx(0.195219452, abs=1e-8)


def test_masking_distillation_has_the_published_value():
    student, clean, masked = (
        torch.tensor(row).double()[None, :, None] for row in ([1.0, 2, 3, 4], [1.5, 2, 2, 5], [0.0, 3, 3.5, 4])
    )
    spans = torch.tensor([[True, False, True, False]])
    assert masked_span_mse(student, clean, masked, spans).item() == pytest.approx(0.5625, abs=1e-12)
    # Without the last frame, which costs nothing: (0.25 + 1 + 1) / 3.
    mask = torch.tensor([[True, True, True, False]])
    assert masked_span_mse(student, clean, masked, spans, mask).item() == pytest.approx(0.75, abs=1e-12)


def test_distilhubert_at_equality_is_the_softplus_of_minus_one():
    expected = 0.3 * np.log1p(np.exp(-1))
    assert frame_regression(STUDENT, STUDENT, cosine_weight=0.3).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("reduction", ["frame", "utterance"])
@pytest.mark.parametrize("loss", LOSSES)
@given(batch=batches())
def test_equals_the_reference(loss, reduction, batch):
    student, teacher, mask = batch
    expected = reduced(values_of(loss, student, teacher), mask.numpy(), reduction)
    assert loss(student, teacher, mask, reduction=reduction).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_no_mask_counts_every_frame(loss):
    student, teacher = torch.randn(2, 3, 5, 4).double()
    every = torch.ones(3, 5, dtype=torch.bool)
    assert_close(loss(student, teacher), loss(student, teacher, every), **EXACT)


@pytest.mark.parametrize("reduction", ["frame", "utterance"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 0.0, 1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_masked_reaches_neither_loss_nor_gradient(loss, poison, reduction):
    student, teacher = torch.randn(2, 2, 3, 4).double()
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = loss(student, teacher, mask, reduction=reduction)
    student, teacher = (x.masked_fill(~mask[..., None], poison) for x in (student, teacher))
    student.requires_grad_()
    actual = loss(student, teacher, mask, reduction=reduction)
    assert_close(actual, expected, **EXACT)
    actual.backward()
    assert student.grad.isfinite().all()
    assert student.grad[~mask].eq(0).all()
    assert student.grad[mask].ne(0).any()


def test_reductions_differ_where_lengths_do():
    # Utterances of 3 and 1 frames: 14 / 4, and (6 / 3 + 8) / 2.
    values = torch.tensor([[1.0, 2.0, 3.0], [8.0, 5.0, 5.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert reduce_frames(values, mask).item() == 3.5
    assert reduce_frames(values, mask, "utterance").item() == 5.0


def test_an_utterance_without_a_valid_frame_does_not_count():
    values, mask = torch.tensor([[2.0, 4.0], [9.0, 9.0]]), torch.tensor([[True, True], [False, False]])
    assert reduce_frames(values, mask, "utterance").item() == 3.0


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_valid_frame_it_is_a_zero_with_a_gradient(loss):
    student, teacher = torch.randn(2, 1, 3, 4)
    student.requires_grad_()
    value = loss(student, teacher, torch.zeros(1, 3, dtype=torch.bool))
    value.backward()
    assert value.item() == 0.0
    assert student.grad.eq(0).all()


@pytest.mark.parametrize("kind", ["log_sigmoid", "negative"])
@given(batch=batches(), scale=st.floats(0.1, 10))
def test_the_cosine_ignores_lengths_and_keeps_its_bounds(kind, batch, scale):
    student, teacher, _ = batch
    value = frame_cosine(student, teacher, kind=kind)
    assert_close(frame_cosine(scale * student, teacher, kind=kind), value, rtol=1e-9, atol=1e-9)
    low, high = (0.313261, 1.313262) if kind == "log_sigmoid" else (-1.000001, 1.000001)
    assert low <= value.item() <= high


def test_a_frame_of_zeros_has_no_direction():
    assert frame_cosine(torch.zeros(1, 1, 3), torch.ones(1, 1, 3), kind="negative").item() == 0.0


@pytest.mark.parametrize("loss", LOSSES)
def test_gives_the_teacher_no_gradient(loss):
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    loss(student, teacher).backward()
    assert student.grad.count_nonzero() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_promoted(loss):
    student, teacher = torch.randn(2, 2, 3, 4)
    half = loss(student.bfloat16(), teacher.bfloat16())
    assert half.dtype == torch.float32
    assert_close(half, loss(student.bfloat16().float(), teacher.bfloat16().float()))
    assert loss(student.double(), teacher).dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "function", "options"),
    [
        (FrameL1, frame_l1, {"reduction": "utterance"}),
        (FrameMSE, frame_mse, {"reduction": "utterance"}),
        (FrameCosine, frame_cosine, {"kind": "negative", "reduction": "utterance"}),
        (FrameRegression, frame_regression, {"kind": "negative", "cosine_weight": 0.5, "reduction": "utterance"}),
    ],
)
def test_modules_call_their_function(module, function, options):
    student, teacher = torch.randn(2, 2, 3, 4)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    made = module(**options)
    assert_close(made(student, teacher, mask), function(student, teacher, mask, **options))
    assert all(f"{name}={value!r}" in repr(made) for name, value in options.items())


def test_the_module_of_masking_distillation_calls_its_function():
    student, clean, masked = torch.randn(3, 2, 3, 4)
    spans, mask = torch.rand(2, 2, 3) > 0.5
    made = MaskedSpanMSE(reduction="utterance")
    expected = masked_span_mse(student, clean, masked, spans, mask, reduction="utterance")
    assert_close(made(student, clean, masked, spans, mask), expected)
    assert "reduction='utterance'" in repr(made)


def test_without_masked_frames_masking_distillation_is_the_masked_teacher_alone():
    student, clean, masked = torch.randn(3, 2, 3, 4).double()
    spans = torch.zeros(2, 3, dtype=torch.bool)
    assert_close(masked_span_mse(student, clean, masked, spans), F.mse_loss(student, masked), **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_input_is_named(loss):
    frames, mask = torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"same shape, got \(2, 3, 4\) and \(2, 2, 4\)"):
        loss(frames, frames[:, 1:])
    with pytest.raises(ShapeError, match=r"frames must have shape \(N, T, D\), got \(3, 4\)"):
        loss(frames[0], frames[0])
    with pytest.raises(ShapeError, match=r"`mask` must have shape \(N, T\) = \(2, 3\), got \(2, 2\)"):
        loss(frames, frames, mask[:, 1:])
    with pytest.raises(TypeError, match=r"`mask` must be boolean, True for valid frames, got torch\.int64"):
        loss(frames, frames, mask.long())
    with pytest.raises(ValueError, match="`reduction` must be one of 'frame', 'utterance', got 'mean'"):
        loss(frames, frames, reduction="mean")


def test_options_are_checked():
    frames = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="`kind` must be one of 'log_sigmoid', 'negative', got 'raw'"):
        frame_cosine(frames, frames, kind="raw")
    with pytest.raises(ValueError, match=r"`cosine_weight` must be a finite number of at least 0, got -1\.0"):
        frame_regression(frames, frames, cosine_weight=-1.0)
    with pytest.raises(ShapeError, match=r"`spans` must have shape \(N, T\) = \(1, 2\), got \(1, 3\)"):
        masked_span_mse(frames, frames, frames, torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"`values` must have shape \(N, T\), one per frame, got \(1, 2, 3\)"):
        reduce_frames(frames)

"""Claims about the losses between CTC networks and the selection of their frames."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    AllFrames,
    CTCFrameKL,
    EliminateBlanks,
    FrameKL,
    GuidedCTC,
    KeepAround,
    RandomBlanks,
    ThresholdBlanks,
    TrimBlanks,
    WidenAround,
    frame_kl,
    guided_ctc,
    select_frames,
    spiking_frames,
)
from lightning_kd.schedules import Progress

BLANK = 2
TEACHER = torch.tensor(
    [[[0, 0, 4], [3, 0, 1], [0, 0, 5], [0, 0, 6], [0, 0, 6], [0, 4, 0], [0, 0, 3], [0, 0, 2]]], dtype=torch.float64
)
STUDENT = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(1, 8, 3).clone()
# The sheet's values, computed in NumPy, of the divergence at each frame at temperature 1.
EACH = [0.409458, 0.912983, 0.484872, 0.521834, 0.521834, 1.356453, 0.275408, 0.098886]
ALL = set(range(8))

SELECTIONS = [
    (AllFrames(), ALL, 0.572715943),
    (EliminateBlanks(), {1, 5}, 1.134717757),
    (KeepAround(1, 0), {0, 1, 4, 5}, 0.800181902),
    (KeepAround(1, 1), {0, 1, 2, 4, 5, 6}, 0.660167890),
    (KeepAround(2, 2), ALL, 0.572715943),
    (KeepAround(0, 0), {1, 5}, 1.134717757),
    (TrimBlanks(), {1, 2, 3, 4, 5}, 0.759595182),
    (ThresholdBlanks(0.05), {1, 5, 6, 7}, None),
]


def selected(selection, teacher=TEACHER, mask=None):
    return set(select_frames(teacher, mask, blank=BLANK, selection=selection)[0].nonzero().flatten().tolist())


@pytest.mark.parametrize(("selection", "frames", "expected"), SELECTIONS, ids=str)
def test_selections_and_their_losses_are_the_sheets(selection, frames, expected):
    assert selected(selection) == frames
    loss = CTCFrameKL(blank=BLANK, selection=selection, temperature=1.0)(STUDENT, TEACHER)
    mean = sum(EACH[frame] for frame in frames) / len(frames)
    assert loss.item() == pytest.approx(mean, abs=1e-6)
    assert expected is None or loss.item() == pytest.approx(expected, abs=1e-8)


def test_one_frame_on_each_side_is_what_is_selected_if_nothing_is_said():
    assert selected(None) == selected(KeepAround(1, 1))


def test_the_threshold_is_on_what_is_not_blank():
    # 1 - p(blank) by frame: .0353 .8858 .0133 .0049 .0049 .9823 .0906 .2130
    assert selected(ThresholdBlanks(0.03)) == {0, 1, 5, 6, 7}
    assert selected(ThresholdBlanks(0.2)) == {1, 5, 7}
    assert selected(ThresholdBlanks(0.0)) == ALL


def test_frames_kept_do_not_wrap_around_the_ends():
    teacher = torch.zeros(2, 4, 3)
    teacher[..., BLANK] = 9.0
    teacher[0, 0, 1] = 99.0
    teacher[1, 3, 1] = 99.0
    kept = select_frames(teacher, blank=BLANK, selection=KeepAround(1, 1))
    assert kept.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_before_and_after_are_not_exchanged():
    assert selected(KeepAround(2, 0)) == {0, 1, 3, 4, 5}
    assert selected(KeepAround(0, 2)) == {1, 2, 3, 5, 6, 7}


def test_random_blanks_are_as_many_as_asked_for_and_never_padding():
    mask = torch.ones(1, 8, dtype=torch.bool)
    mask[:, 7] = False
    for ratio, count in ((0.0, 2), (0.5, 3), (1.0, 4), (100.0, 7)):
        frames = selected(RandomBlanks(ratio), mask=mask)
        assert {1, 5} <= frames <= set(range(7))
        assert len(frames) == count
    draws = {frozenset(selected(RandomBlanks(1.0))) for _ in range(20)}
    assert len(draws) > 1


def test_the_context_widens_with_the_epochs():
    rule = WidenAround(every_epochs=2)
    assert [rule.at(Progress(epoch=epoch)) for epoch in (0, 1, 2, 5)] == [
        KeepAround(0, 0),
        KeepAround(0, 0),
        KeepAround(1, 1),
        KeepAround(2, 2),
    ]
    assert selected(rule) == {1, 5}


@pytest.mark.parametrize("selection", [*(rule for rule, _, _ in SELECTIONS), RandomBlanks(1.0)], ids=str)
def test_padding_is_never_selected_and_changes_nothing(selection):
    padded = torch.full((1, 11, 3), 7.0, dtype=torch.float64)
    padded[:, :8] = TEACHER
    padded[:, 9, 0] = 99.0  # a spike in the padding
    mask = torch.arange(11)[None] < 8
    torch.manual_seed(0)
    inside = select_frames(padded, mask, blank=BLANK, selection=selection)
    assert not inside[:, 8:].any()
    if not isinstance(selection, RandomBlanks):
        assert inside[:, :8].equal(select_frames(TEACHER, blank=BLANK, selection=selection))


def test_a_log_prior_changes_which_frames_spike():
    # At frame 7 the blank leads by 2; a prior of log 8 = 2.08 for it turns that over, at frame 6 it leads by 3.
    prior = torch.tensor([0.0, 0.0, math.log(8.0)])
    assert spiking_frames(TEACHER, blank=BLANK, log_prior=prior)[0].nonzero().flatten().tolist() == [1, 5, 7]
    with pytest.raises(ShapeError, match=r"one value per class, \(3,\), got \(2,\)"):
        spiking_frames(TEACHER, blank=BLANK, log_prior=prior[:2])


def test_a_teacher_that_says_nothing_gives_a_zero_with_a_graph():
    silent = torch.zeros(2, 4, 3)
    silent[..., BLANK] = 9.0
    student = torch.randn(2, 4, 3, requires_grad=True)
    loss = CTCFrameKL(blank=BLANK)(student, silent)
    loss.backward()
    assert loss.item() == 0.0
    assert_close(student.grad, torch.zeros_like(student))


@given(st.integers(0, 1000), st.sampled_from([1.0, 2.0, 5.0]))
def test_frame_and_utterance_means_differ_with_the_lengths(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 3, 6, 4, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([6, 1, 3])
    mask = torch.arange(6) < lengths[:, None]
    log_q, log_p = (torch.log_softmax(z / temperature, -1) for z in (student, teacher))
    each = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
    by_frame = (each * mask).sum() / 10
    by_utterance = ((each * mask).sum(1) / lengths).mean()
    assert_close(frame_kl(student, teacher, mask, temperature=temperature), by_frame, rtol=1e-9, atol=1e-12)
    loss = frame_kl(student, teacher, mask, temperature=temperature, reduction="utterance")
    assert_close(loss, by_utterance, rtol=1e-9, atol=1e-12)


def test_nothing_in_the_padding_reaches_value_or_gradient():
    student = torch.randn(1, 4, 3, requires_grad=True)
    poisoned = student.detach().clone()
    poisoned[:, 2:] = float("nan")
    poisoned.requires_grad_()
    teacher = torch.randn(1, 4, 3)
    mask = torch.tensor([[True, True, False, False]])
    for loss in (frame_kl, lambda *a: guided_ctc(*a, blank=0)):
        clean, dirty = (loss(logits, teacher, mask) for logits in (student, poisoned))
        assert_close(dirty, clean)
        clean.backward()
        dirty.backward()
        assert_close(poisoned.grad, student.grad)
        student.grad = poisoned.grad = None


def test_guided_ctc_is_the_probability_of_the_teachers_spikes():
    # Softmax of (0, 0, 1): 1 / (2 + e) at labels 0 and 1; spikes at 2 of 8 frames.
    expected = -2 / (2 + math.e) / 8
    assert guided_ctc(STUDENT, TEACHER, blank=BLANK).item() == pytest.approx(expected, rel=1e-12)
    mask = torch.arange(8)[None] < 5  # one spike of 5 frames
    assert guided_ctc(STUDENT, TEACHER, mask, blank=BLANK).item() == pytest.approx(-1 / (2 + math.e) / 5, rel=1e-12)


def test_the_modules_compute_the_functions():
    assert_close(FrameKL(temperature=3.0)(STUDENT, TEACHER), frame_kl(STUDENT, TEACHER, temperature=3.0))
    assert_close(GuidedCTC(blank=BLANK)(STUDENT, TEACHER), guided_ctc(STUDENT, TEACHER, blank=BLANK))
    assert repr(GuidedCTC(blank=2)) == "GuidedCTC(blank=2, reduction='frame')"


def test_refuses_options_out_of_range():
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'mean'"):
        frame_kl(STUDENT, TEACHER, reduction="mean")
    with pytest.raises(ValueError, match=r"`temperature` must be .* got 0"):
        FrameKL(temperature=0)
    with pytest.raises(ValueError, match=r"`before` must be .* got -1"):
        KeepAround(before=-1)
    with pytest.raises(ValueError, match=r"`other` must be .* got 2"):
        ThresholdBlanks(2.0)
    with pytest.raises(ValueError, match=r"`ratio` must be .* got -1"):
        RandomBlanks(-1.0)
    with pytest.raises(ValueError, match=r"`every_epochs` must be .* got 0"):
        WidenAround(0)
    with pytest.raises(ShapeError, match=r"\(1, 8, 3\) and \(1, 8, 2\)"):
        frame_kl(STUDENT, TEACHER[..., :2])

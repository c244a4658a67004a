"""Claims about the regression of what was hidden, against the oracle of the method sheet."""

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import HiddenFrameRegression, contextual_target, hidden_frame_regression

STUDENT = torch.tensor([[[0.5, -1], [2, 0], [1, 1], [0, 0]]]).double()
TEACHER = torch.tensor([[[1.0, -1], [0, 1], [1, 3], [4, 4]]]).double()
HIDDEN = torch.tensor([[True, False, True, False]])


def test_equals_the_published_values():
    assert hidden_frame_regression(STUDENT, TEACHER, HIDDEN).item() == pytest.approx(1.0625, abs=1e-12)
    everywhere = torch.ones_like(HIDDEN)
    assert hidden_frame_regression(STUDENT, TEACHER, everywhere).item() == pytest.approx(5.15625, abs=1e-12)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("l1", (0.5 + 2) / 4),
        # A difference of 1/2 is squared and halved; of one of 2 a half is taken off.
        ("smooth_l1", (0.125 + 1.5) / 4),
    ],
)
def test_other_distances_equal_values_by_hand(distance, expected):
    loss = hidden_frame_regression(STUDENT, TEACHER, HIDDEN, distance=distance)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    assert_close(HiddenFrameRegression(distance=distance)(STUDENT, TEACHER, HIDDEN), loss)


def test_padding_that_was_hidden_does_not_count():
    mask = torch.tensor([[True, True, False, False]])
    # Of the hidden frames only the first is valid: 0.25 / 2.
    student = STUDENT.clone().requires_grad_()
    loss = hidden_frame_regression(student, TEACHER, HIDDEN, mask)
    assert loss.item() == pytest.approx(0.125, abs=1e-12)
    loss.backward()
    assert not student.grad[0, 1:].any()


def test_an_utterance_of_which_nothing_was_hidden_does_not_count():
    student, teacher = STUDENT.repeat(2, 1, 1), TEACHER.repeat(2, 1, 1)
    hidden = torch.cat([HIDDEN, torch.zeros_like(HIDDEN)])
    for reduction in ("frame", "utterance"):
        loss = hidden_frame_regression(student, teacher, hidden, reduction=reduction)
        assert loss.item() == pytest.approx(1.0625, abs=1e-12)


def test_is_a_zero_with_gradient_if_nothing_was_hidden():
    student = STUDENT.clone().requires_grad_()
    loss = hidden_frame_regression(student, TEACHER, torch.zeros_like(HIDDEN))
    assert loss.item() == 0.0
    loss.backward()
    assert not student.grad.any()


def test_the_target_is_the_mean_of_standardised_layers():
    states = [torch.randn(2, 3, 8).double() for _ in range(3)]
    standard = [(s - s.mean(-1, keepdim=True)) / s.std(-1, keepdim=True, correction=0) for s in states]
    assert_close(contextual_target(states), sum(standard) / 3, rtol=1e-4, atol=1e-5)
    assert contextual_target([states[0].half()]).dtype == torch.float32


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="`distance` must be one of 'mse', 'l1', 'smooth_l1', got 'l2'"):
        hidden_frame_regression(STUDENT, TEACHER, HIDDEN, distance="l2")
    with pytest.raises(ValueError, match=r"`reduction` must be one of .* got 'sum'"):
        HiddenFrameRegression(reduction="sum")
    with pytest.raises(ShapeError, match="states of at least one layer, got none"):
        contextual_target([])

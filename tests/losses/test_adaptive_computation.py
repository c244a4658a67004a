"""Claims about the losses of adaptive computation, against the oracles of the method sheet."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import (
    budget_loss,
    computation_share,
    cumulative_mse,
    gate_diversity_loss,
    gate_entropy_loss,
    useful_learners,
)

ONES = torch.ones(1, 1, 2, dtype=torch.float64)
# Three courses of h_k = (f, f) towards y = (1, 1).
SLOWING = (0.0, 0.6, 0.9, 0.91, 0.92)
STEADY = (0.0, 0.6, 0.9, 0.95, 0.96)
LATE = (0.0, 0.05, 0.5, 0.9, 0.95)


def errors(course):
    return torch.tensor([math.sqrt(2) * (1 - f) for f in course], dtype=torch.float64)


def chosen(counts, learners=4):
    """One-hot choices of shape (N, T, learners + 1)."""
    return torch.nn.functional.one_hot(torch.tensor(counts), learners + 1).double()


def test_the_error_of_all_sums_equals_the_published_value():
    # The squares are 1, 0.16, 0.01, 0.0025 and 0.0016.
    assert cumulative_mse([f * ONES for f in STEADY], ONES).item() == pytest.approx(0.23482, abs=1e-12)


@pytest.mark.parametrize(("course", "ours", "published"), [(SLOWING, 3, 3), (STEADY, 4, 4), (LATE, 1, 4)])
def test_labels_equal_the_published_ones_but_for_a_late_start(course, ours, published):
    assert useful_learners(errors(course)).item() == ours
    assert useful_learners(errors(course), reference=True).item() == published


def test_every_frame_has_its_own_label():
    frames = torch.stack([errors(SLOWING), errors(STEADY), errors(LATE)], dim=1)
    assert useful_learners(frames).tolist() == [3, 4, 1]


def test_labels_exist_where_the_error_is_zero():
    assert useful_learners(torch.tensor([1.0, 0.0, 0.0])).item() == 2


def test_share_and_budget_equal_the_published_values():
    share = computation_share([chosen([[2, 4, 0, 2]])], [7.0])
    assert share.item() == pytest.approx(0.5, abs=1e-12)
    assert budget_loss(share, 0.6).item() == pytest.approx(0.1, abs=1e-12)


def test_modules_count_by_what_their_learners_cost():
    # All of a module of cost 3, none of one of cost 1.
    assert computation_share([chosen([[4, 4]]), chosen([[0, 0]])], [3.0, 1.0]).item() == pytest.approx(0.75)


def test_entropy_equals_the_published_value():
    assert gate_entropy_loss([chosen([[2, 4, 0, 2]])]).item() == pytest.approx(-0.646014837, abs=1e-9)


def test_diversity_equals_the_published_value():
    assert gate_diversity_loss([chosen([[1, 1], [2, 2], [4, 4]])]).item() == pytest.approx(-2.6666666667, abs=1e-9)


@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=3))
def test_padding_counts_for_nothing(counts):
    choices = chosen(counts)
    padded = torch.cat([choices, chosen([[4, 0]] * len(counts))], dim=1)
    mask = torch.tensor([[True] * 3 + [False] * 2] * len(counts))
    assert_close(computation_share([padded], [1.0], mask), computation_share([choices], [1.0]))
    assert_close(gate_entropy_loss([padded], mask), gate_entropy_loss([choices]))
    assert_close(gate_diversity_loss([padded], mask), gate_diversity_loss([choices]))


@given(st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=5).map(tuple), min_size=1, max_size=1))
def test_losses_lie_in_their_ranges(counts):
    choices = [chosen([list(counts[0])])]
    assert 0 <= computation_share(choices, [1.0]) <= 1
    assert -1 - 1e-9 <= gate_entropy_loss(choices) <= 0
    assert gate_diversity_loss(choices) == 0  # one sample


def test_padding_counts_for_nothing_in_the_error_of_sums():
    sums, target = [torch.randn(1, 4, 3).double() for _ in range(3)], torch.randn(1, 4, 3).double()
    mask = torch.tensor([[True, True, False, False]])
    sums[0][:, 2:] = torch.nan
    expected = cumulative_mse([s[:, :2] for s in sums], target[:, :2])
    assert_close(cumulative_mse(sums, target, mask), expected)


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="at least one sum of learners, got none"):
        cumulative_mse([], ONES)
    with pytest.raises(ShapeError, match=r"shape \(N \+ 1, ...\) .* got \(1,\)"):
        useful_learners(torch.ones(1))
    with pytest.raises(ValueError, match="`ratio` must be a finite number above 0, got 0"):
        useful_learners(torch.ones(3), ratio=0)
    with pytest.raises(ShapeError, match="got 2 for 1 modules"):
        computation_share([chosen([[1]])], [1.0, 2.0])
    with pytest.raises(ValueError, match="`target` must be a number from 0 to 1, got 2"):
        budget_loss(torch.zeros(()), 2)
    for loss in (gate_entropy_loss, gate_diversity_loss):
        with pytest.raises(ShapeError, match="at least one module, got none"):
            loss([])


def test_gradients_are_finite_where_a_number_is_never_chosen():
    choices = chosen([[2, 2], [4, 4]]).requires_grad_()
    (gate_entropy_loss([choices]) + gate_diversity_loss([choices])).backward()
    assert choices.grad.isfinite().all()

"""Claims about parts of a data set, and the weight that goes with them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.errors import ShapeError
from lightning_kd.selection import distillation_share, random_subset, scored_subset

SCORES = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2, 0.8], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("keep", "labels", "expected"),
    [
        ("hardest", None, [1, 3, 5]),
        ("easiest", None, [0, 2, 4]),
        ("moderate", None, [2, 3, 5]),  # nearest to the median, 0.6: 0.5, 0.7, and 0.8
        ("hardest", LABELS, [1, 2, 5]),  # 1.5 of each class; the first remainder goes to class 0
        ("easiest", LABELS, [0, 2, 4]),
        ("moderate", LABELS, [0, 2, 3]),  # medians 0.5 and 0.7; of 0.1 and 0.9, equally far, the first
    ],
)
def test_half_of_the_samples_are_those_that_the_scores_mark_out(keep, labels, expected):
    assert scored_subset(SCORES, 0.5, keep=keep, labels=labels) == expected


def test_among_equal_scores_the_first_stay():
    assert scored_subset(torch.ones(5), 0.4) == [0, 1]


@given(st.integers(1, 200), st.floats(0.001, 1.0), st.integers(0, 3))
def test_a_random_part_has_the_right_size_no_sample_twice_and_is_the_same_for_one_seed(samples, fraction, seed):
    chosen = random_subset(samples, fraction, seed=seed)
    assert len(chosen) == max(1, round(fraction * samples))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(samples))
    assert chosen == random_subset(samples, fraction, seed=seed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_every_class_keeps_its_share_to_less_than_one_sample(labels, fraction):
    labels = torch.tensor(labels)
    total = max(1, round(fraction * len(labels)))
    for chosen in (
        random_subset(len(labels), fraction, labels=labels),
        scored_subset(torch.arange(len(labels)).double(), fraction, labels=labels),
    ):
        assert len(chosen) == total
        for label in labels.unique():
            size, kept = int((labels == label).sum()), int((labels[chosen] == label).sum())
            assert abs(kept - fraction * size) < 1 or total == 1


def test_another_seed_is_another_part():
    assert random_subset(100, 0.1, seed=0) != random_subset(100, 0.1, seed=1)


def test_the_whole_is_everything():
    assert random_subset(5, 1.0) == scored_subset(SCORES[:5], 1.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fraction", "full", "share"), [(1.0, 0.5, 0.5), (0.5, 0.5, 0.75), (0.1, 0.5, 0.95), (0.2, 0.9, 0.98)]
)
def test_the_less_data_the_more_the_teacher_counts(fraction, full, share):
    assert distillation_share(fraction, full=full) == share


def test_what_is_no_part_is_refused():
    with pytest.raises(ValueError, match="`fraction` must be a finite number above 0, got 0"):
        random_subset(10, 0)
    with pytest.raises(ValueError, match=r"`fraction` must be a number from 0 to 1, got 1.5"):
        distillation_share(1.5)
    with pytest.raises(ValueError, match=r"`keep` must be one of .* got 'best'"):
        scored_subset(SCORES, 0.5, keep="best")
    with pytest.raises(ValueError, match="`scores` must be finite, got 1 that are not"):
        scored_subset(torch.tensor([1.0, torch.nan]), 0.5)
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(6,\), got \(5,\)"):
        scored_subset(SCORES, 0.5, labels=LABELS[:5])
    with pytest.raises(ShapeError, match=r"`scores` must have shape \(n,\) with n > 0, got \(2, 3\)"):
        scored_subset(SCORES.reshape(2, 3), 0.5)

"""Claims about samples that stand for their class."""

import itertools

import numpy as np
import pytest
import torch

from lightning_kd.errors import ShapeError
from lightning_kd.selection import exemplar_subset, herd


def greedy(features, count):
    """Herding by its definition, in NumPy: try every sample, keep the best."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    mean, chosen = unit.mean(0), []
    for size in range(1, count + 1):
        free = [i for i in range(len(unit)) if i not in chosen]
        chosen.append(min(free, key=lambda i: np.linalg.norm(mean - unit[[*chosen, i]].sum(0) / size)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herding_is_the_greedy_choice_of_its_definition(seed):
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert herd(features, 6) == greedy(features.numpy(), 6)


def test_a_shorter_choice_is_the_beginning_of_a_longer_one():
    features = torch.randn(20, 4)
    longest = herd(features, 20)
    assert sorted(longest) == list(range(20))
    assert all(herd(features, count) == longest[:count] for count in (1, 5, 13))


def test_the_first_exemplar_is_nearest_to_the_mean_direction_whatever_the_lengths():
    features = torch.tensor([[1.0, 0.0], [50.0, 50.0], [0.0, 1.0]])
    assert herd(features, 1) == [1]


def test_a_memory_holds_every_class_and_all_of_a_small_one():
    labels = torch.tensor([2, 0, 2, 2, 0, 5])
    chosen = exemplar_subset(torch.randn(6, 3), labels, per_class=2)
    assert [int(labels[index]) for index in chosen] == [0, 0, 2, 2, 5]
    assert len(set(chosen)) == 5
    members = [0, 2, 3]
    features = torch.randn(6, 3)
    kept = [index for index in exemplar_subset(features, labels, per_class=2) if labels[index] == 2]
    assert kept == [members[index] for index in herd(features[members], 2)]


def test_the_mean_of_exemplars_is_nearer_than_that_of_most_other_choices():
    features = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64), dim=1)
    distances = [
        float((features[list(choice)].mean(0) - features.mean(0)).norm())
        for choice in itertools.combinations(range(8), 3)
    ]
    own = float((features[herd(features, 3)].mean(0) - features.mean(0)).norm())
    assert own < float(np.median(distances))


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(ValueError, match="at most the number of samples, 4, got 5"):
        herd(torch.eye(4), 5)
    with pytest.raises(ValueError, match="`count` must be a finite number above 0, got 0"):
        herd(torch.eye(4), 0)
    with pytest.raises(ShapeError, match=r"`features` must have shape \(n, d\), got \(4,\)"):
        herd(torch.ones(4), 1)
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(4,\), got \(3,\)"):
        exemplar_subset(torch.eye(4), torch.zeros(3), per_class=1)

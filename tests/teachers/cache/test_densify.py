"""Distributions from sparse probabilities: the sheets' oracles, and laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.errors import ShapeError
from lightning_kd.losses import soft_cross_entropy, soft_target_kl
from lightning_kd.teachers.cache.densify import as_logits, densify

P, IDS = torch.tensor([[0.6, 0.2]], dtype=torch.float64), torch.tensor([[3, 0]])
LOGITS = torch.tensor([[0.0, 0, 0, 1, 0, 0]], dtype=torch.float64)


def test_the_missing_mass_is_spread_over_the_other_classes():
    # 1 - 0.8 over 4 classes.
    expected = torch.tensor([[0.2, 0.05, 0.05, 0.6, 0.05, 0.05]], dtype=torch.float64)
    torch.testing.assert_close(densify(P, IDS, class_count=6), expected, rtol=1e-12, atol=0)


def test_cross_entropy_and_divergence_are_those_of_the_published_code():
    teacher = as_logits(densify(P, IDS, class_count=6))
    assert soft_cross_entropy(LOGITS, teacher).item() == pytest.approx(1.4435917782, abs=1e-10)
    assert soft_target_kl(LOGITS, teacher, temperature=1.0).item() == pytest.approx(0.2160623667, abs=1e-10)


def test_renormalized_probabilities_leave_nothing_to_the_others():
    found = densify(P, IDS, class_count=6, rest="renormalize")
    torch.testing.assert_close(found, torch.tensor([[0.25, 0, 0, 0.75, 0, 0]]).double(), rtol=1e-12, atol=0)


def test_one_stored_class_alone_is_a_hard_label():
    found = densify(torch.tensor([[0.3]]), torch.tensor([[2]]), class_count=4, rest="renormalize")
    assert found.tolist() == [[0, 0, 1, 0]]


def test_rounding_above_one_leaves_no_negative_probability():
    rounded = torch.tensor([[0.7505, 0.25]]).half()  # the sum is 1.0005
    found = densify(rounded, torch.tensor([[1, 2]]), class_count=4)
    assert found.min() == 0
    assert found.sum().item() == pytest.approx(1.0, abs=1e-6)


@given(
    st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.floats(0.01, 1), min_size=6, max_size=6))),
    st.sampled_from(["uniform", "renormalize"]),
)
def test_every_row_is_a_distribution_whose_logits_give_it_back(stored, rest):
    count, weights = stored
    distribution = torch.tensor(weights, dtype=torch.float64)
    top, classes = (distribution / distribution.sum()).topk(count)
    found = densify(top, classes, class_count=6, rest=rest)
    assert found.sum().item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(as_logits(found).softmax(-1), found, rtol=1e-9, atol=1e-300)
    if rest == "uniform" or count == 6:
        torch.testing.assert_close(found[classes], top, rtol=1e-12, atol=0)


def test_more_stored_classes_than_there_are_is_an_error():
    with pytest.raises(ShapeError, match=r"K of at most 1 classes, got \(1, 2\)"):
        densify(P, IDS, class_count=1)
    with pytest.raises(ValueError, match="'zeros'"):
        densify(P, IDS, class_count=6, rest="zeros")

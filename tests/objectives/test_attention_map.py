"""Claims about `ATKD`."""

import pytest
import torch
from torch.testing import assert_close

from lightning_kd import Tap
from lightning_kd.losses import attention_transfer
from lightning_kd.objectives import ATKD


def test_the_published_weight_and_power_are_the_defaults():
    assert (ATKD("a", "b").weight, ATKD("a", "b").power) == (1000.0, 2)


def test_is_the_sum_over_pairs_and_has_no_adapters(over_features):
    maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    tokens = [torch.randn(2, 16, 6), torch.randn(2, 4, 6)]
    objective = ATKD(["a", "b"], ["c", "d"], power=4)
    term = over_features(objective, maps, tokens)(maps, tokens)
    as_maps = [t.transpose(1, 2).unflatten(2, (side, side)) for t, side in zip(tokens, (4, 2), strict=True)]
    expected = [attention_transfer(s, t, power=4) for s, t in zip(maps, as_maps, strict=True)]
    assert_close(term, expected[0] + expected[1])
    assert not list(objective.parameters())


def test_class_tokens_do_not_matter(over_features):
    student, tokens = torch.randn(2, 3, 4, 4), torch.randn(2, 17, 6)
    objective = ATKD("a", Tap("b", prefix_tokens=1))
    term = over_features(objective, [student], [tokens])
    before = term([student], [tokens])
    tokens[:, 0] = 100.0
    assert term([student], [tokens]) == before


def test_refuses_a_power_that_is_not_whole_and_positive():
    with pytest.raises(ValueError, match="`power` must be a whole number of at least 1, got 0"):
        ATKD("a", "b", power=0)

"""Claims about which samples to ask the teacher about: the game, against a linear program."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.selection import robust_active_subset, robust_probabilities

GAINS = torch.tensor([0.9, 0.1, 0.6, 0.3, 0.0])


def payoff(probabilities, gains, wrong):
    """What the player gets if the opponent names the samples that hurt most."""
    return np.sort(probabilities * gains)[: len(gains) - wrong].sum()


def best_payoff(gains, wrong):
    """The player's best, as a linear program in the probabilities, and in the dual of the opponent's choice."""
    n = len(gains)
    # Maximise sum_i v_i - m l - sum_i u_i with v_i = q_i g_i and l + u_i >= v_i.
    cost = np.concatenate([-gains, [wrong], np.ones(n)])
    above = np.hstack([np.diag(gains), -np.ones((n, 1)), -np.eye(n)])
    one = np.concatenate([np.ones(n), np.zeros(n + 1)])[None]
    return -linprog(cost, A_ub=above, b_ub=np.zeros(n), A_eq=one, b_eq=[1.0]).fun


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12), st.data())
def test_no_other_draw_gains_more_against_the_worst_opponent(gains, data):
    wrong = data.draw(st.integers(0, len(gains) - 1))
    probabilities = robust_probabilities(torch.tensor(gains, dtype=torch.float64), wrong=wrong).numpy()
    assert probabilities.sum() == pytest.approx(1.0)
    assert payoff(probabilities, np.array(gains), wrong) == pytest.approx(best_payoff(np.array(gains), wrong), rel=1e-6)


def test_probabilities_are_in_inverse_proportion_to_the_gains_that_are_worth_it():
    # wrong = 1: (k - 1) / sum of 1/g is 0 for k = 1, 1 / (1/0.9 + 1/0.6) = 0.36, 2 / (2.778 + 3.333) = 0.327.
    expected = torch.tensor([0.4, 0.0, 0.6, 0.0, 0.0], dtype=torch.float64)
    assert_close(robust_probabilities(GAINS, wrong=1), expected, rtol=1e-6, atol=1e-9)


def test_a_teacher_that_is_never_wrong_is_asked_about_the_largest_gain():
    assert robust_probabilities(GAINS, wrong=0).tolist() == [1, 0, 0, 0, 0]
    assert robust_active_subset(GAINS, 3, wrong=0) == [0, 2, 3]


def test_the_more_the_teacher_errs_the_wider_the_draw_spreads():
    support = [int((robust_probabilities(GAINS, wrong=wrong) > 0).sum()) for wrong in range(4)]
    assert support == sorted(support)
    assert support[0] == 1
    assert support[-1] == 4


def test_a_draw_is_repeated_by_its_seed_and_takes_none_twice():
    gains = torch.rand(50)
    draws = [robust_active_subset(gains, 10, wrong=20, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert all(draw == sorted(set(draw)) and len(draw) == 10 for draw in draws)


def test_samples_are_drawn_as_often_as_their_probabilities_say():
    probabilities = robust_probabilities(GAINS, wrong=2)
    drawn = [robust_active_subset(GAINS, 1, wrong=2, seed=seed)[0] for seed in range(2000)]
    frequency = torch.bincount(torch.tensor(drawn), minlength=5).double() / 2000
    assert_close(frequency, probabilities, rtol=0, atol=0.04)  # three standard deviations of 2000 draws


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"above 0 for at least 5 samples, .* got 4 of 5: ask for fewer"):
        robust_active_subset(GAINS, 5, wrong=0)
    with pytest.raises(ValueError, match="above 0 for at least 5 samples"):
        robust_probabilities(GAINS, wrong=4)
    with pytest.raises(ValueError, match="`wrong` must be at least 0, got -1"):
        robust_probabilities(GAINS, wrong=-1)
    with pytest.raises(ValueError, match="`gains` must be finite and at least 0"):
        robust_probabilities(-GAINS, wrong=1)
    with pytest.raises(ShapeError, match=r"`gains` must have shape \(n,\), got \(1, 5\)"):
        robust_probabilities(GAINS[None], wrong=1)

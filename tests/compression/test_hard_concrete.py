"""Claims about hard concrete gates and the constraint on their sparsity."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.compression.hard_concrete import (
    HardConcreteGate,
    SparsityConstraint,
    open_probability,
    sampled_gates,
    settled_gates,
    sparsity_penalty,
)
from lightning_kd.errors import ShapeError

LOG_ALPHA = torch.tensor([2.0, 0.0, -1.0, -4.0], dtype=torch.float64)
PRINTED = {"rtol": 0.0, "atol": 5e-7}


def test_probabilities_equal_the_published_values():
    expected = torch.tensor([0.973367, 0.831822, 0.645335, 0.083066], dtype=torch.float64)
    assert_close(open_probability(LOG_ALPHA), expected, **PRINTED)
    assert open_probability(LOG_ALPHA).sum().item() == pytest.approx(2.533590, abs=5e-7)


def test_settled_gates_equal_the_published_values():
    # One of the four is expected to be closed: 4 - 2.533590, rounded.
    expected = torch.tensor([0.916827, 0.5, 0.231475, 0.0], dtype=torch.float64)
    assert_close(settled_gates(LOG_ALPHA), expected, **PRINTED)


def test_sampled_gates_equal_the_published_values():
    log_alpha = torch.tensor([2.0, 0.0, -4.0], dtype=torch.float64)
    gates = sampled_gates(log_alpha, torch.full_like(log_alpha, 0.3))
    assert_close(gates, torch.tensor([0.919150, 0.162914, 0.0], dtype=torch.float64), **PRINTED)


@pytest.mark.parametrize(("drop_rate", "open_share", "soft"), [(0.01, 0.997962, 0.995987), (0.5, 0.831822, 0.5)])
def test_gates_start_at_the_published_values(drop_rate, open_share, soft):
    log_alpha = torch.full((1,), math.log((1 - drop_rate) / drop_rate), dtype=torch.float64)
    assert open_probability(log_alpha).item() == pytest.approx(open_share, abs=5e-7)
    assert settled_gates(log_alpha).item() == pytest.approx(soft, abs=5e-7)
    started = HardConcreteGate(1000, drop_rate=drop_rate).log_alpha.detach()
    assert started.mean().item() == pytest.approx(log_alpha.item(), abs=2e-3)
    assert started.std().item() == pytest.approx(0.01, rel=0.1)


@given(st.floats(-6, 6), st.integers(0, 99))
def test_as_many_gates_are_open_as_the_probability_says(log_alpha, seed):
    noise = torch.rand(20_000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.full_like(noise, log_alpha)
    share = sampled_gates(values, noise).gt(0).double().mean().item()
    assert share == pytest.approx(open_probability(values)[0].item(), abs=0.02)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=9), st.floats(0, 1))
def test_gates_are_shares_and_grow_with_alpha(values, noise):
    log_alpha = torch.tensor(sorted(values), dtype=torch.float64)
    for gates in (settled_gates(log_alpha), sampled_gates(log_alpha, torch.full_like(log_alpha, noise))):
        assert gates.min() >= 0
        assert gates.max() <= 1
        assert (gates.diff() >= 0).all()


def test_draws_anew_in_training_and_not_in_evaluation():
    gate = HardConcreteGate(64, drop_rate=0.5)
    assert not torch.equal(gate(), gate())
    gate.eval()
    assert torch.equal(gate(), gate())
    assert repr(gate) == "HardConcreteGate(gates=64)"


def test_gates_learn_from_what_passes_them_and_from_their_number():
    gate = HardConcreteGate(64, drop_rate=0.5)
    gate().sum().backward()
    assert gate.log_alpha.grad.gt(0).any()
    gate.log_alpha.grad = None
    gate.expected_open().backward()
    assert gate.log_alpha.grad.gt(0).all()


def test_the_penalty_is_zero_once_the_target_is_met():
    ten = torch.tensor(10.0, dtype=torch.float64)
    assert sparsity_penalty(ten / 20, 0.25, ten, ten).item() == 0.0
    assert sparsity_penalty(ten / 40, 0.5, ten, 2 * ten).item() == pytest.approx(10 / 4 + 20 / 16, rel=1e-12)


def test_gates_close_while_the_multipliers_rise():
    torch.manual_seed(0)
    gate, constraint = HardConcreteGate(32, drop_rate=0.05), SparsityConstraint(initial=1.0)
    descent = torch.optim.Adam(gate.parameters(), lr=0.1)
    ascent = torch.optim.Adam(constraint.parameters(), lr=0.1, maximize=True)
    for _ in range(200):
        penalty = constraint(1 - gate.expected_open() / 32, 0.5)
        descent.zero_grad()
        ascent.zero_grad()
        penalty.backward()
        descent.step()
        ascent.step()
    assert constraint.linear > 1.0
    assert gate.expected_open() <= 16
    assert gate.eval()().eq(0).sum() >= 16


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"`drop_rate` must be in \(0, 1\), got 1\.0"):
        HardConcreteGate(4, drop_rate=1.0)
    with pytest.raises(ValueError, match="`gates` must be a finite number above 0, got 0"):
        HardConcreteGate(0)
    with pytest.raises(ShapeError, match=r"`noise` must have the shape of `log_alpha`, \(4,\), got \(3,\)"):
        sampled_gates(LOG_ALPHA, torch.rand(3))
    with pytest.raises(ShapeError, match=r"shape \(gates,\), got \(2, 2\)"):
        settled_gates(LOG_ALPHA.reshape(2, 2))


def test_the_two_sided_penalty_equals_the_published_value():
    # 0.5 (0.2 - 0.3) + 2 (0.2 - 0.3)²
    values = [torch.tensor(value, dtype=torch.float64) for value in (0.2, 0.5, 2.0)]
    penalty = sparsity_penalty(values[0], 0.3, values[1], values[2], two_sided=True)
    assert penalty.item() == pytest.approx(-0.03, abs=1e-12)


def test_the_two_sided_constraint_is_met_from_both_sides():
    for drop_rate in (0.05, 0.95):
        gate, constraint = HardConcreteGate(32, drop_rate=drop_rate), SparsityConstraint(initial=0.0, two_sided=True)
        descent = torch.optim.Adam(gate.parameters(), lr=0.05)
        ascent = torch.optim.Adam(constraint.parameters(), lr=0.05, maximize=True)
        for _ in range(600):
            sparsity = 1 - gate.expected_open() / 32
            constraint(sparsity, 0.5).backward()
            for optimizer in (descent, ascent):
                optimizer.step()
                optimizer.zero_grad()
        assert sparsity.item() == pytest.approx(0.5, abs=0.05)

"""Claims about what happens to gradients on their way back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.gradients import reverse_gradient, scale_gradient


@given(st.floats(0.0, 10.0))
def test_keeps_the_value_and_reverses_the_gradient(strength):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x, strength=strength)
    assert torch.equal(y, x)
    (direct,) = torch.autograd.grad(x.square().sum(), x)
    (reversed_,) = torch.autograd.grad(y.square().sum(), x)
    assert_close(reversed_, -strength * direct, rtol=1e-12, atol=0.0)


def test_a_step_of_descent_behind_it_climbs():
    theta = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.SGD([theta], lr=0.1)
    before = theta.square().item()
    reverse_gradient(theta).square().backward()
    optimizer.step()
    assert theta.square().item() > before


def test_is_reversed_once_however_often_it_is_used():
    x = torch.tensor(2.0, requires_grad=True)
    y = reverse_gradient(x, strength=0.5)
    (y * y + y).backward()
    assert x.grad.item() == pytest.approx(-0.5 * (2 * 2.0 + 1))


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_refuses_a_strength_that_would_not_reverse(strength):
    with pytest.raises(ValueError, match=rf"`strength` must be a finite number of at least 0, got {strength}"):
        reverse_gradient(torch.zeros(1), strength=strength)


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_scaling_keeps_the_value_and_scales_the_gradient(factor):
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert_close(x.grad, factor * 2 * x.detach(), rtol=1e-12, atol=0.0)


def test_scaling_refuses_a_negative_factor():
    with pytest.raises(ValueError, match=r"`factor` must be a finite number of at least 0, got -0\.1"):
        scale_gradient(torch.zeros(1), -0.1)

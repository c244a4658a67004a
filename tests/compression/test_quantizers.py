"""Quantisers of weights and activations against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.compression import quantize_activation, quantize_to_levels, ternarize, uniform_quantize
from lightning_kd.compression.quantizers import assign_levels
from lightning_kd.errors import ShapeError

FIVE = torch.tensor([-1.0, -0.2, 0.1, 0.55, 1.0], dtype=torch.float64)


def exactly(actual, expected):
    assert_close(actual, torch.tensor(expected, dtype=actual.dtype), rtol=1e-12, atol=1e-12)


def test_uniform_levels_are_those_of_the_sheet():
    # u = [0, .4, .55, .775, 1]; times 3 and rounded: [0, 1, 2, 2, 3].
    exactly(uniform_quantize(FIVE, levels=4), [-1.0, -1 / 3, 1 / 3, 1 / 3, 1.0])


def test_each_bucket_has_its_own_range_and_the_last_may_be_short():
    # Buckets [-1, -.2], [.1, .55] and [1] with two levels keep their ends.
    exactly(uniform_quantize(FIVE, levels=2, bucket_size=2), FIVE.tolist())
    exactly(uniform_quantize(FIVE, levels=2, bucket_size=3), [-1.0, 0.1, 0.1, 0.55, 1.0])


def test_equal_weights_stay_what_they_are():
    exactly(uniform_quantize(torch.full((2, 3), 0.7, dtype=torch.float64), levels=2), [[0.7] * 3] * 2)


def test_stochastic_rounding_is_right_on_average_and_stays_on_the_grid():
    weight = torch.tensor([0.0, 0.3, 1.0]).repeat_interleave(20_000)
    rounded = uniform_quantize(weight, levels=2, bucket_size=None, stochastic=True)
    assert set(rounded.tolist()) == {0.0, 1.0}
    # The standard error of the mean of 20,000 draws with p = 0.3 is 0.0032.
    assert float(rounded[20_000:40_000].mean()) == pytest.approx(0.3, abs=0.015)


@given(st.integers(2, 9), st.integers(0, 2**16))
def test_uniform_quantisation_errs_by_at_most_half_a_step_and_passes_gradients(levels, seed):
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    step = float(weight.max() - weight.min()) / (levels - 1)
    quantized = uniform_quantize(weight.requires_grad_(), levels=levels, bucket_size=None)
    assert bool(((quantized - weight).abs() <= step / 2 + 1e-12).all())
    assert len(quantized.detach().unique()) <= levels
    (quantized * torch.arange(15.0).reshape(3, 5)).sum().backward()
    exactly(weight.grad, torch.arange(15.0).reshape(3, 5).tolist())


def test_levels_get_the_gradients_of_their_weights():
    levels = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0], dtype=torch.float64, requires_grad=True)
    assert assign_levels(weight.detach(), levels.detach()).tolist() == [0, 0, 1, 2, 2]
    (quantize_to_levels(weight, levels) * torch.arange(1.0, 6.0)).sum().backward()
    exactly(levels.grad, [3.0, 3.0, 9.0])
    assert weight.grad is None


def test_gradients_of_levels_are_scaled_by_the_buckets_range():
    # Scaled by 4 and moved by 1, so that dL/dp is 4 times as large.
    levels = torch.tensor([0.05, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    weight = 1 + 4 * torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0], dtype=torch.float64)
    quantized = quantize_to_levels(weight, levels)
    exactly(quantized.detach(), [1.2, 1.2, 3.0, 4.6, 4.6])
    (quantized * torch.arange(1.0, 6.0)).sum().backward()
    exactly(levels.grad, [12.0, 12.0, 36.0])


def test_levels_that_crossed_get_the_gradients_of_their_places():
    levels = torch.tensor([0.9, 0.05, 0.5], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0], dtype=torch.float64)
    (quantize_to_levels(weight, levels) * torch.arange(1.0, 6.0)).sum().backward()
    exactly(levels.grad, [9.0, 3.0, 3.0])


def test_ternary_weights_are_those_of_the_sheet():
    # Mean magnitude .425, threshold .2975, alpha (.9 + .4 + .3) / 3.
    row = [0.1, -0.9, 0.4, 0.3]
    alpha = 1.6 / 3
    exactly(ternarize(torch.tensor([row], dtype=torch.float64)), [[0.0, -alpha, alpha, alpha]])
    two = torch.tensor([row, [2 * x for x in row]], dtype=torch.float64)
    exactly(ternarize(two), [[0, -alpha, alpha, alpha], [0, -2 * alpha, 2 * alpha, 2 * alpha]])


def test_all_rows_may_share_one_alpha():
    # Mean magnitude .6375, threshold .44625; kept are .9, 1.8, .8, .6.
    weight = torch.tensor([[0.1, -0.9, 0.4, 0.3], [0.2, -1.8, 0.8, 0.6]], dtype=torch.float64)
    alpha = (0.9 + 1.8 + 0.8 + 0.6) / 4
    exactly(ternarize(weight, per_row=False), [[0, -alpha, 0, 0], [0, -alpha, alpha, alpha]])


def test_ternary_gradient_is_zero_outside_of_the_clip_range():
    weight = torch.tensor([[3.0, -0.5, 2.5, -2.6]], requires_grad=True)
    ternarize(weight).sum().backward()
    assert weight.grad.tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_a_row_of_zeros_stays_zero():
    exactly(ternarize(torch.zeros(1, 4)), [[0.0] * 4])


def test_activations_are_rounded_to_a_symmetric_grid():
    # 3 bits: 3 steps up to the largest magnitude, 3.
    exactly(quantize_activation(torch.tensor([0.4, -1.0, 3.0, -0.6]), bits=3), [0.0, -1.0, 3.0, -1.0])


def test_activations_beyond_the_clip_are_limited_and_get_no_gradient():
    activation = torch.tensor([0.4, -1.0, 6.0], requires_grad=True)
    quantized = quantize_activation(activation, bits=3, clip=3.0)
    exactly(quantized.detach(), [0.0, -1.0, 3.0])
    quantized.sum().backward()
    assert activation.grad.tolist() == [1.0, 1.0, 0.0]


def test_activations_of_zero_stay_zero():
    exactly(quantize_activation(torch.zeros(3)), [0.0] * 3)
    assert quantize_activation(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_quantize(FIVE, levels=1), r"`levels` must be a whole number of at least 2, got 1"),
        (lambda: uniform_quantize(FIVE, bucket_size=0), r"`bucket_size` must be .* got 0"),
        (lambda: quantize_activation(FIVE, bits=1), r"`bits` must be a whole number from 2 to 16, got 1"),
        (lambda: quantize_activation(FIVE, clip=-1.0), r"`clip` must be .* got -1.0"),
        (lambda: ternarize(FIVE[None], clip=math.inf), r"`clip` must be .* got inf"),
        (lambda: ternarize(FIVE), r"shape \(output, input, ...\), got \(5,\)"),
    ],
)
def test_values_out_of_range_are_refused(call, message):
    with pytest.raises((ValueError, ShapeError), match=message):
        call()

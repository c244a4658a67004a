"""Fake quantisers against values worked out by hand and against PyTorch's own fake quantisation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from exporters.quantization.quantizers import ActivationQuantizer, WeightQuantizer, learned_step


def activation(**options):
    quantizer = ActivationQuantizer(
        **{"kind": "affine", "momentum": 0.01, "percentile": None, "learned": False, **options}
    )
    quantizer.enabled, quantizer.observing = True, "never"
    return quantizer


@pytest.mark.parametrize(("momentum", "ends"), [(0.01, (-1.5, 3.0)), (None, (-3.0, 4.0))])
def test_a_range_is_the_mean_of_the_batches_ranges_or_holds_them_all(momentum, ends):
    quantizer = activation(momentum=momentum)
    for batch in ([-3.0, 2.0], [1.0, 4.0]):
        quantizer.observe(torch.tensor(batch))
    # Zero is in the range of every batch: (-3 + 0) / 2, (2 + 4) / 2.
    assert (quantizer.minimum.item(), quantizer.maximum.item()) == pytest.approx(ends)


def test_a_weight_is_rounded_to_multiples_of_each_channels_largest_magnitude():
    quantizer = WeightQuantizer(2, bits=3, learned=False)  # integers from -3 to 3
    quantizer.enabled = True
    weight = torch.tensor([[3.0, -1.4, 0.6], [-0.6, 0.25, 0.0]], requires_grad=True)
    # Scales 3/3 = 1 and 0.6/3 = 0.2: 3, round(-1.4) = -1, round(0.6) = 1; -3 * 0.2, round(1.25) * 0.2 = 0.2, 0.
    expected = torch.tensor([[3.0, -1.0, 1.0], [-0.6, 0.2, 0.0]])

    rounded = quantizer.fake(weight)
    rounded.sum().backward()

    torch.testing.assert_close(rounded, expected)
    torch.testing.assert_close(weight.grad, torch.ones(2, 3))
    integers, scale = quantizer.integers(weight)
    assert integers.dtype == torch.int8
    assert integers.tolist() == [[3, -1, 1], [-3, 1, 0]]
    torch.testing.assert_close(scale, torch.tensor([1.0, 0.2]))


def test_scaling_a_channel_scales_its_rounded_weight_so_that_batch_norm_may_be_multiplied_in():
    quantizer = WeightQuantizer(4, bits=8, learned=True)
    quantizer.enabled = True
    weight, factor = torch.randn(4, 3, 2, 2), torch.tensor([0.5, -2.0, 8.0, -0.25]).reshape(4, 1, 1, 1)
    quantizer.start(weight)
    torch.testing.assert_close(quantizer.fake(weight * factor), quantizer.fake(weight) * factor, rtol=1e-6, atol=0)


@given(st.integers(2, 8), st.integers(0, 10_000))
def test_no_weight_moves_by_more_than_half_a_step(bits, seed):
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed))
    quantizer = WeightQuantizer(3, bits=bits, learned=False)
    quantizer.enabled = True
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert bool(((quantizer.fake(weight) - weight).abs() <= step * 0.5 + 1e-6).all())


def test_an_affine_range_is_mapped_to_all_integers_with_zero_exact():
    quantizer = activation()
    quantizer.observe(torch.tensor([-1.0, 4.1]))
    scale, zero_point = quantizer.scale_and_zero_point()
    # 5.1 / 255 = 0.02; zero is 50 steps above the smallest integer.
    torch.testing.assert_close(scale, torch.tensor(0.02))
    assert zero_point.item() == -128 + 50
    # 9 is clipped to 127, which stands for (127 + 78) * 0.02 = 4.1.
    torch.testing.assert_close(quantizer.fake(torch.tensor([0.0, 0.031, 9.0])), torch.tensor([0.0, 0.04, 4.1]))


def test_a_symmetric_range_has_the_zero_point_zero():
    quantizer = activation(kind="symmetric")
    quantizer.observe(torch.tensor([-1.27, 0.5]))
    scale, zero_point = quantizer.scale_and_zero_point()
    torch.testing.assert_close(scale, torch.tensor(0.01))
    assert zero_point.item() == 0
    torch.testing.assert_close(quantizer.fake(torch.tensor([-3.0, 3.0])), torch.tensor([-1.28, 1.27]))


def test_a_range_is_the_mean_of_the_first_batches_and_then_their_moving_average():
    quantizer = activation(momentum=0.5)
    for highest in (1.0, 3.0, 8.0):
        quantizer.observe(torch.tensor([0.0, highest]))
    # Mean of 1 and 3 is 2; the third batch has the share max(1/3, 0.5): 2 + 0.5 * (8 - 2) = 5.
    assert quantizer.maximum.item() == 5.0
    assert quantizer.batches.item() == 3


def test_a_percentile_leaves_outliers_out():
    quantizer = activation(percentile=99.0)
    quantizer.observe(torch.cat([torch.linspace(0, 1, 1001), torch.tensor([1000.0])]))
    assert 0.98 < quantizer.maximum.item() < 1.0


def test_what_a_relu_discards_does_not_count():
    quantizer = activation(non_negative=True)
    quantizer.observe(torch.tensor([-9.0, 2.55]))
    assert quantizer.minimum.item() == 0.0
    torch.testing.assert_close(quantizer.fake(torch.tensor([-9.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_the_gradient_passes_where_nothing_is_clipped():
    quantizer = activation(kind="symmetric")
    quantizer.maximum.fill_(1.0)
    tensor = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    quantizer.fake(tensor).sum().backward()
    assert tensor.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("when", ["never", "with_gradients", "always"])
@pytest.mark.parametrize("gradients", [False, True])
def test_ranges_are_measured_when_it_was_said(when, gradients):
    quantizer = activation()
    quantizer.observing = when
    with torch.set_grad_enabled(gradients):
        quantizer.fake(torch.ones(2))
    assert quantizer.batches.item() == int(when == "always" or (when == "with_gradients" and gradients))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_stay_and_half_precision_is_rounded_in_float32(dtype):
    tensor = torch.randn(4, 5, dtype=dtype)
    weight = WeightQuantizer(4, bits=8, learned=False)
    weight.enabled = True
    assert weight.fake(tensor).dtype == dtype
    quantizer = activation()
    quantizer.observe(tensor)
    rounded = quantizer.fake(tensor)
    assert rounded.dtype == dtype
    torch.testing.assert_close(rounded, quantizer.fake(tensor.float()).to(dtype), rtol=1e-2, atol=1e-2)


def test_the_gradient_of_a_learned_scale_is_the_rounding_error_and_the_limit_where_clipped():
    scale = torch.tensor(0.5, requires_grad=True)
    tensor = torch.tensor([0.9, -0.6, 5.0, -5.0], requires_grad=True)
    # x/s = 1.8, -1.2, 10, -10 with limits -4 and 3: y/s = 2, -1, 3, -4.
    rounded = learned_step(tensor, scale, torch.tensor(-4), torch.tensor(3), 0.1)
    rounded.sum().backward()
    assert rounded.tolist() == [1.0, -0.5, 1.5, -2.0]
    assert tensor.grad.tolist() == [1.0, 1.0, 0.0, 0.0]
    # (2 - 1.8) + (-1 + 1.2) + 3 - 4 = -0.6, times 0.1.
    assert scale.grad.item() == pytest.approx(-0.06, rel=1e-5)


def test_learned_scales_start_no_worse_than_the_largest_magnitude():
    weight = torch.randn(5, 200)
    errors = {}
    for learned in (False, True):
        quantizer = WeightQuantizer(5, bits=4, learned=learned)
        quantizer.enabled = True
        quantizer.start(weight)
        errors[learned] = (quantizer.fake(weight) - weight).square().sum(dim=1)
    assert bool((errors[True] <= errors[False] + 1e-6).all())
    assert errors[True].sum() < 0.8 * errors[False].sum()


def test_a_learned_scale_at_rest_still_has_a_gradient():
    quantizer = WeightQuantizer(2, bits=8, learned=True)
    quantizer.fake(torch.randn(2, 3)).sum().backward()
    assert quantizer.log_ratio.grad.tolist() == [0.0, 0.0]

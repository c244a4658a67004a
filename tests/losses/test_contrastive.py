"""Claims about `noise_contrastive`."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import NoiseContrastive, noise_contrastive

EXACT = {"rtol": 1e-9, "atol": 1e-12}
sizes = st.integers(1, 10**6)


@st.composite
def log_probabilities(draw):
    shape = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    return torch.from_numpy(draw(arrays(np.float64, shape, elements=st.floats(-30, 5))))


def reference(log_values, samples):
    """The published fractions, from probabilities."""
    p = np.exp(log_values.numpy())
    negatives = p.shape[1] - 1
    constant = negatives / samples + 1e-7
    found = np.log(p[:, 0] / (p[:, 0] + constant))
    rejected = np.log(negatives / samples / (p[:, 1:] + constant)).sum(axis=1)
    return torch.from_numpy(-(found + rejected))


def test_equals_the_published_value_when_all_are_as_likely_as_noise():
    # P = 1/n and 4 negatives: log 5 + 4 log 5/4
    uniform = torch.full((3, 5), -math.log(2.0), dtype=torch.float64)
    assert noise_contrastive(uniform, samples=2).item() == pytest.approx(2.5020121177, rel=1e-6)
    assert math.log(5) + 4 * math.log(1.25) == pytest.approx(2.5020121177, rel=1e-10)


@given(log_probabilities(), sizes)
def test_equals_the_reference_and_is_not_negative(values, samples):
    loss = noise_contrastive(values, samples=samples, reduction="none")
    assert_close(loss, reference(values, samples), rtol=1e-8, atol=1e-8)
    assert (loss >= 0).all()


@given(log_probabilities(), sizes)
def test_reductions_agree(values, samples):
    each = noise_contrastive(values, samples=samples, reduction="none")
    assert each.shape == values.shape[:1]
    assert_close(noise_contrastive(values, samples=samples), each.mean(), **EXACT)
    assert_close(noise_contrastive(values, samples=samples, reduction="sum"), each.sum(), **EXACT)


def test_falls_with_the_positive_and_rises_with_every_negative():
    values = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    noise_contrastive(values, samples=50).backward()
    assert (values.grad[:, 0] < 0).all()
    assert (values.grad[:, 1:] > 0).all()
    assert torch.autograd.gradcheck(lambda x: noise_contrastive(x, samples=50), values)


@pytest.mark.parametrize("extreme", [-1000.0, 1000.0])
def test_no_temperature_overflows(extreme):
    values = torch.full((2, 4), extreme, requires_grad=True)
    loss = noise_contrastive(values, samples=100)
    loss.backward()
    # All likely: three negatives cost log(P / (K/n)) each. All unlikely: the positive alone costs as much.
    expected = 3 * (1000 - math.log(0.03)) if extreme > 0 else 1000 + math.log(0.03)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert values.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert noise_contrastive(torch.randn(2, 4).to(given_dtype), samples=9).dtype == returned


def test_module_computes_the_function():
    values = torch.randn(2, 4)
    module = NoiseContrastive(samples=9, reduction="sum")
    assert module(values) == noise_contrastive(values, samples=9, reduction="sum")
    assert repr(module) == "NoiseContrastive(samples=9, reduction='sum')"


@pytest.mark.parametrize("shape", [(3, 1), (0, 4), (4,)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ShapeError, match=rf"at least one sample and one negative, got \({shape[0]},"):
        noise_contrastive(torch.zeros(shape), samples=9)


def test_refuses_whole_numbers_and_options_out_of_range():
    with pytest.raises(TypeError, match=r"`log_probabilities` must be a floating-point tensor, got torch\.int64"):
        noise_contrastive(torch.zeros(2, 3, dtype=torch.long), samples=9)
    for refuse in (NoiseContrastive, lambda **options: noise_contrastive(torch.zeros(2, 3), **options)):
        with pytest.raises(ValueError, match="`samples` must be a finite number above 0, got 0"):
            refuse(samples=0)
        with pytest.raises(ValueError, match="got 'batch'"):
            refuse(samples=9, reduction="batch")

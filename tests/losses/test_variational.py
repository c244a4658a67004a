"""Claims about `variational_information`."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.losses import VariationalInformation, variational_information

EXACT = {"rtol": 1e-9, "atol": 1e-12}


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(2, 3), (1, 2, 4), (2, 3, 2, 2)]))
    values = arrays(np.float64, shape, elements=st.floats(-10, 10, width=32))
    variance = arrays(np.float64, shape[1:2], elements=st.floats(0.125, 16, width=32))
    return tuple(torch.from_numpy(draw(array)) for array in (values, values, variance))


def test_equals_the_published_value():
    # An error of 1 everywhere and v = 5: (1/5 + log 5) / 2
    mean, target = torch.ones(2, 3, 2, 2, dtype=torch.float64), torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    loss = variational_information(mean, target, torch.full((3,), 5.0, dtype=torch.float64))
    assert loss.item() == pytest.approx(0.9047189562, rel=1e-9)
    assert loss.item() == pytest.approx((0.2 + math.log(5)) / 2, rel=1e-12)


@given(cases())
def test_is_a_gaussian_likelihood_without_its_constant(case):
    mean, target, variance = case
    scale = np.sqrt(variance.numpy()).reshape(1, -1, *[1] * (mean.ndim - 2))
    expected = -norm.logpdf(target.numpy(), loc=mean.numpy(), scale=scale) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(variational_information(*case, reduction="none").numpy(), expected, rtol=1e-9, atol=1e-9)


@given(cases())
def test_is_half_the_log_variance_at_equality(case):
    _, target, variance = case
    loss = variational_information(target, target, variance)
    assert_close(loss, variance.log().mean() / 2, **EXACT)


@given(cases())
def test_is_least_where_the_variance_is_the_mean_squared_error(case):
    mean, target, variance = case
    error = (mean - target).square().movedim(1, 0).flatten(1).mean(1).clamp(min=1e-6)
    best = variational_information(mean, target, error)
    assert variational_information(mean, target, variance) >= best - 1e-9


@given(cases())
def test_reductions_agree(case):
    each = variational_information(*case, reduction="none")
    assert each.shape == case[0].shape
    assert_close(variational_information(*case), each.mean(), **EXACT)
    assert_close(variational_information(*case, reduction="sum"), each.sum(), **EXACT)


def test_has_an_exact_gradient_in_mean_and_variance():
    mean, target = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64).unbind()
    variance = torch.rand(3, dtype=torch.float64) + 0.5
    inputs = mean.requires_grad_(), variance.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: variational_information(m, target, v), inputs)


def test_gives_the_teacher_no_gradient():
    mean, target = (torch.randn(2, 3, 2, 2, requires_grad=True) for _ in range(2))
    variance = torch.ones(3, requires_grad=True)
    variational_information(mean, target, variance).backward()
    assert mean.grad is not None
    assert variance.grad is not None
    assert target.grad is None


@pytest.mark.parametrize("samples", [1, 4])
def test_equals_itself_under_bfloat16_autocast(samples):
    mean, target = torch.randn(2, samples, 3, 4, 4).unbind()
    variance = torch.full((3,), 5.0, requires_grad=True)
    expected = variational_information(mean, target, variance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = variational_information(mean, target, variance)
    loss.backward()
    assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert variance.grad.isfinite().all()


@pytest.mark.parametrize(
    ("given_dtype", "returned"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_promotes_half_and_keeps_double(given_dtype, returned):
    feature, variance = torch.ones(1, 3, 2, 2, dtype=given_dtype), torch.ones(3, dtype=given_dtype)
    assert variational_information(feature, feature, variance).dtype == returned


def test_squares_of_half_precision_do_not_overflow():
    feature = torch.full((1, 3, 2, 2), 6e4, dtype=torch.float16)
    assert variational_information(feature, -feature, torch.ones(3)).isfinite()


def test_module_computes_the_function():
    mean, target = torch.randn(2, 2, 3, 2, 2).unbind()
    module = VariationalInformation(reduction="sum")
    variance = torch.ones(3)
    assert module(mean, target, variance) == variational_information(mean, target, variance, reduction="sum")
    assert repr(module) == "VariationalInformation(reduction='sum')"


def test_refuses_shapes_that_do_not_fit():
    feature = torch.zeros(2, 3, 2, 2)
    with pytest.raises(ShapeError, match=r"got \(2, 3, 2, 2\) and \(2, 3, 2\)"):
        variational_information(feature, feature[..., 0], torch.ones(3))
    with pytest.raises(ShapeError, match=r"one value per channel of the features \(2, 3, 2, 2\), got shape \(2,\)"):
        variational_information(feature, feature, torch.ones(2))
    with pytest.raises(ShapeError, match=r"of the features \(3,\), got shape \(3,\)"):
        variational_information(torch.zeros(3), torch.zeros(3), torch.ones(3))
    with pytest.raises(TypeError, match=r"`student` must be a floating-point tensor, got torch\.int64"):
        variational_information(feature.long(), feature, torch.ones(3))


def test_refuses_an_unknown_reduction():
    with pytest.raises(ValueError, match=r"`reduction` must be one of .*, got 'batch'"):
        VariationalInformation(reduction="batch")

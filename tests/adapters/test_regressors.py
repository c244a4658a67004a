"""Claims about the published regressors."""

import pytest
import torch
from torch import nn

from lightning_kd.adapters import Geometry
from lightning_kd.adapters.regressors import HintRegressor, bottleneck_projector, information_regressor, is_rectified
from lightning_kd.layout import Layout


def level(width, *grid):
    return Geometry(Layout("NCHW"), width, grid)


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel", "stride", "padding"),
    [
        ((16, 16), (8, 8), nn.Conv2d, (3, 3), (2, 2), (1, 1)),
        ((8, 8), (16, 16), nn.ConvTranspose2d, (4, 4), (2, 2), (1, 1)),
        ((8, 8), (8, 8), nn.Conv2d, (1, 1), (1, 1), (0, 0)),
        ((8, 8), (7, 7), nn.Conv2d, (2, 2), (1, 1), (0, 0)),
        ((16, 16), (4, 4), nn.Conv2d, (13, 13), (1, 1), (0, 0)),
        ((8, 6), (4, 6), nn.Conv2d, (3, 1), (2, 1), (1, 0)),
        ((8, 6), (16, 6), nn.ConvTranspose2d, (4, 1), (2, 1), (1, 0)),
        ((), (), nn.Conv2d, (1, 1), (1, 1), (0, 0)),
        ((9,), (5,), nn.Conv2d, (1, 5), (1, 1), (0, 0)),
    ],
)
def test_one_convolution_bridges_the_grids(student, teacher, kind, kernel, stride, padding):
    regressor = HintRegressor(level(3, *student), level(5, *teacher), rectify=True)
    convolution = regressor.convolution
    assert type(convolution) is kind
    assert (convolution.kernel_size, convolution.stride, convolution.padding) == (kernel, stride, padding)
    prediction, target = regressor(torch.randn(2, 3, *student), torch.randn(2, 5, *teacher))
    assert prediction.shape == target.shape == (2, 5, *level(5, *teacher).plane)


@pytest.mark.parametrize(("student", "teacher", "smaller"), [((4, 4), (7, 7), (4, 4)), ((8, 2), (4, 7), (4, 2))])
def test_other_ratios_meet_on_the_smaller_grid(student, teacher, smaller):
    regressor = HintRegressor(level(3, *student), level(5, *teacher), rectify=False)
    prediction, target = regressor(torch.randn(2, 3, *student), torch.randn(2, 5, *teacher))
    assert (regressor.convolution.kernel_size, regressor.convolution.padding) == ((3, 3), (1, 1))
    assert prediction.shape == target.shape == (2, 5, *smaller)


def test_the_target_is_the_teachers_feature_unchanged():
    target = torch.randn(2, 5, 4, 4)
    assert torch.equal(
        HintRegressor(level(3, 8, 8), level(5, 4, 4), rectify=True)(torch.randn(2, 3, 8, 8), target)[1], target
    )


def test_ends_in_a_relu_only_if_asked():
    student, teacher = torch.randn(4, 3, 4, 4), torch.randn(4, 5, 4, 4)
    for rectify in (True, False):
        prediction, _ = HintRegressor(level(3, 4, 4), level(5, 4, 4), rectify=rectify)(student, teacher)
        assert bool((prediction < 0).any()) is not rectify


def test_trains_on_one_sample_of_one_position():
    student = torch.randn(1, 3, 1, 1, requires_grad=True)
    prediction, _ = HintRegressor(level(3, 1, 1), level(5, 1, 1), rectify=False)(student, torch.randn(1, 5, 1, 1))
    prediction.sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(("outputs", "factor", "middle"), [(8, 2, 4), (8, 1, 8), (3, 4, 1)])
def test_the_projector_is_narrow_inside(outputs, factor, middle):
    layers = bottleneck_projector(6, outputs, factor=factor)
    convolutions = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, nn.Conv2d)]
    assert convolutions == [(middle, 6, 1, 1), (middle, middle, 3, 3), (outputs, middle, 1, 1)]
    assert (layers(torch.randn(2, 6, 4, 4)) >= 0).all()
    assert (bottleneck_projector(6, outputs, rectify=False)(torch.randn(2, 6, 4, 4)) < 0).any()


def test_the_information_regressor_has_no_constant():
    assert torch.equal(information_regressor(3, 5)(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 5, 2, 2))


def test_a_feature_is_rectified_if_nothing_is_below_zero():
    assert is_rectified(torch.tensor([0.0, 2.0]))
    assert not is_rectified(torch.tensor([-1e-6, 2.0]))

"""Claims about `ResizedView`."""

import pickle

import pytest
import torch
from torch import nn

from lightning_kd import FrozenTeacher
from lightning_kd.errors import ShapeError
from lightning_kd.taps import Inputs
from lightning_kd.teachers.views import ResizedView


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_resizes_to_the_teachers_size(mode):
    assert ResizedView((32, 16), mode)(torch.randn(2, 3, 64, 48)).shape == (2, 3, 32, 16)


def test_passes_images_of_that_size_on_as_they_are():
    images = torch.randn(2, 3, 32, 32)
    assert ResizedView(32)(images) is images


def test_halving_keeps_the_mean_of_a_ramp():
    # A linear ramp is symmetric about its middle, and so is antialiased halving.
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    assert ResizedView(4)(ramp).mean().item() == pytest.approx(3.5, rel=1e-6)


def test_the_teacher_sees_the_resized_images():
    teacher = FrozenTeacher(nn.Identity(), input_transform=ResizedView(16))
    assert teacher.observe(Inputs.of(torch.randn(2, 3, 64, 64))).output.shape == (2, 3, 16, 16)


def test_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(ResizedView(32))) == ResizedView(32)  # noqa: S301


@pytest.mark.parametrize("size", [0, (8, 0), -4])
def test_refuses_a_size_that_is_not_above_zero(size):
    with pytest.raises(ValueError, match=r"`size` must be at least 1 pixel, got"):
        ResizedView(size)


def test_refuses_what_is_not_images():
    with pytest.raises(ShapeError, match=r"got \(2, 3\)"):
        ResizedView(8)(torch.randn(2, 3))

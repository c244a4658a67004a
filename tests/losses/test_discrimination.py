"""The discriminator's loss."""

import numpy as np
import pytest
import torch

from lightning_kd.errors import ShapeError
from lightning_kd.losses import Discrimination, discrimination


def test_is_ln_2_where_nothing_is_told_apart():
    assert discrimination(torch.zeros(3, 2), torch.zeros(3, 2)).item() == pytest.approx(0.6931471806, abs=1e-7)


def test_equals_binary_cross_entropy_written_out():
    student, teacher = np.random.default_rng(0).normal(size=(2, 4, 2))

    def cross_entropy(scores, target):
        p, target = 1 / (1 + np.exp(-scores)), np.array(target)
        return -(target * np.log(p) + (1 - target) * np.log(1 - p))

    expected = np.concatenate([cross_entropy(student, [1, 0]), cross_entropy(teacher, [0, 1])]).mean()
    assert Discrimination()(torch.tensor(student), torch.tensor(teacher)).item() == pytest.approx(expected, abs=1e-12)


def test_gradients_reach_both_sides_and_half_is_promoted():
    student, teacher = (torch.zeros(2, 2, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    loss = discrimination(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    # d/ds of the mean over 8 scores at 0 is (1/2 - target) / 8.
    assert student.grad.tolist() == [[-0.0625, 0.0625]] * 2
    assert teacher.grad.tolist() == [[0.0625, -0.0625]] * 2


@pytest.mark.parametrize("shape", [(0, 2), (2, 3), (2,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"must be scores of shape \(N, 2\)"):
        discrimination(torch.zeros(shape), torch.zeros(shape))

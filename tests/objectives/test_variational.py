"""Claims about `VIDKD`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from lightning_kd.objectives import VIDKD


def test_the_published_weight_and_variance_are_the_defaults():
    assert (VIDKD("a", "b").weight, VIDKD("a", "b").variance) == (1.0, 5.0)


@pytest.mark.parametrize("variance", [1.1e-5, 0.01, 5.0, 1000.0])
def test_every_channel_starts_with_the_variance_asked_for(variance, over_features):
    objective = VIDKD("a", "b", variance=variance)
    over_features(objective, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 6, 4, 4)])
    assert_close(F.softplus(objective.scales[0]) + 1e-5, torch.full((6,), variance), rtol=1e-4, atol=0.0)


def test_an_error_of_one_gives_the_published_value(over_features):
    objective = VIDKD("a", "b")
    student, teacher = torch.randn(2, 3, 4, 4), torch.zeros(2, 6, 4, 4)
    term = over_features(objective, [student], [teacher])
    objective.adapters[0].append(nn.Hardtanh(1.0, 2.0)).append(nn.Threshold(10.0, 1.0))
    # The prediction is 1 everywhere: (1/5 + log 5) / 2
    assert term([student], [teacher]).item() == pytest.approx(0.9047189562, rel=1e-6)


def test_is_the_sum_over_pairs_on_the_smaller_grid(over_features):
    students, teachers = [torch.randn(2, 3, 8, 8)] * 2, [torch.randn(2, 6, 4, 4)] * 2
    objective = VIDKD(["a", "b"], ["c", "d"])
    term = over_features(objective, students, teachers)(students, teachers)
    expected = 0.0
    for regressor in objective.adapters:
        mean = regressor(F.avg_pool2d(students[0], 2))
        expected += F.gaussian_nll_loss(mean, teachers[0], torch.full_like(mean, 5.0))
    assert_close(term, expected)


def test_regressors_are_three_bare_convolutions(over_features):
    objective = VIDKD("a", "b")
    over_features(objective, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 6, 4, 4)])
    convolutions = [layer for layer in objective.adapters[0] if isinstance(layer, nn.Conv2d)]
    assert [tuple(c.weight.shape) for c in convolutions] == [(6, 3, 1, 1), (6, 6, 1, 1), (6, 6, 1, 1)]
    assert all(c.bias is None for c in convolutions)
    assert [type(layer) for layer in objective.adapters[0]][1::2] == [nn.ReLU, nn.ReLU]


def test_scales_learn(over_features):
    objective = VIDKD("a", "b")
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4, requires_grad=True)
    over_features(objective, [student], [teacher])([student], [teacher]).backward()
    assert (objective.scales[0].grad != 0).all()
    assert teacher.grad is None


def test_refuses_variances_that_cannot_be():
    with pytest.raises(ValueError, match=r"`variance` must be a finite number above 0, got 0\.0"):
        VIDKD("a", "b", variance=0.0)
    with pytest.raises(ValueError, match=r"`variance` must be above 1e-05, got 1e-06"):
        VIDKD("a", "b", variance=1e-6)

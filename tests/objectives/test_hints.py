"""Claims about `FitNetKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.objectives import FitNetKD


def test_the_published_weight_is_the_default():
    assert FitNetKD("a", "b").weight == 100.0


def test_is_zero_where_an_identity_regressor_meets_a_rectified_feature(over_features):
    feature = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    objective = FitNetKD("a", "b")
    term = over_features(objective, [feature], [feature])
    regressor = objective.adapters[0].double().eval()
    nn.init.dirac_(regressor.convolution.weight)
    nn.init.zeros_(regressor.convolution.bias)
    regressor.norm.eps = 0.0
    assert term([feature], [feature]).item() == pytest.approx(0.0, abs=1e-24)


def test_is_the_mean_squared_error_of_the_prediction_and_the_mean_over_pairs(over_features):
    students = [torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)]
    teachers = [torch.rand(2, 4, 4, 4), torch.rand(2, 6, 4, 4)]
    objective = FitNetKD(["a", "b"], ["c", "d"])
    term = over_features(objective, students, teachers)
    objective.eval()
    terms = []
    for regressor, s, t in zip(objective.adapters, students, teachers, strict=True):
        prediction = torch.relu(regressor.norm(regressor.convolution(s)))
        terms.append((prediction - t).square().mean())
    assert_close(term(students, teachers), (terms[0] + terms[1]) / 2)


@pytest.mark.parametrize(
    ("rectify", "target", "activation"),
    [
        (None, torch.rand(2, 3, 4, 4), nn.ReLU),
        (None, torch.randn(2, 3, 4, 4), nn.Identity),
        (True, torch.randn(2, 3, 4, 4), nn.ReLU),
        (False, torch.rand(2, 3, 4, 4), nn.Identity),
    ],
)
def test_ends_in_a_relu_where_the_target_allows_it_or_it_is_asked_for(rectify, target, activation, over_features):
    objective = FitNetKD("a", "b", rectify=rectify)
    over_features(objective, [torch.randn(2, 3, 4, 4)], [target])
    assert isinstance(objective.adapters[0].activation, activation)


def test_gives_the_teacher_no_gradient(over_features):
    student, teacher = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    over_features(FitNetKD("a", "b"), [student], [teacher])([student], [teacher]).backward()
    assert student.grad is not None
    assert teacher.grad is None

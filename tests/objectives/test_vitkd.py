"""Claims about `ViTKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.objectives import ViTKD

PLACES = ["a", "b", "c"], ["d", "e", "f"]


def features(width=6):
    return [torch.randn(2, 16, width) for _ in range(3)]


def test_the_published_values_are_the_defaults():
    objective = ViTKD("a", "b")
    assert (objective.shallow, objective.deep, objective.ratio, objective.weight) == (3e-5, 3e-6, 0.5, 1.0)


def test_shallow_pairs_are_imitated_with_the_published_factor(over_features):
    students, teachers = features(4), features()
    objective = ViTKD(*PLACES, deep=0.0)
    term = over_features(objective, students, teachers)(students, teachers)
    errors = []
    for align, s, t in zip(objective.adapters[:2], students, teachers, strict=False):
        weight, bias = align.projection.weight.flatten(1), align.projection.bias
        errors.append((s @ weight.T + bias - t).square().sum() / 2)
    assert_close(term, 3e-5 * (errors[0] + errors[1]))


def test_the_deep_pair_counts_where_it_is_hidden(over_features):
    students, teachers = features(), features()
    objective = ViTKD(*PLACES, shallow=0.0)
    term = over_features(objective, students, teachers)
    objective.generator = nn.Identity()
    nn.init.constant_(objective.mask_token, 3.0)
    torch.manual_seed(1)
    loss = term(students, teachers)
    torch.manual_seed(1)
    ranks = torch.rand(2, 1, 4, 4).flatten(1).argsort(1).argsort(1)
    hidden = ranks >= 8
    error = (3.0 - teachers[2]).square().sum(2)[hidden].sum() / 2
    assert_close(loss, 3e-6 / 0.5 * error)


def test_is_zero_where_shallow_pairs_are_equal_and_the_deep_one_is_generated(over_features):
    students, teachers = features(), features()
    objective = ViTKD(*PLACES)
    term = over_features(objective, students, teachers)
    objective.generator = nn.Identity()
    nn.init.constant_(objective.mask_token, 2.0)
    target = torch.full_like(teachers[2], 2.0)
    assert term(students, [*students[:2], target]).item() == 0.0


def test_a_single_pair_is_generated(over_features):
    student = torch.randn(2, 16, 6, requires_grad=True)
    teacher = torch.randn(2, 16, 6, requires_grad=True)
    objective = ViTKD("a", "b")
    over_features(objective, [student], [teacher])([student], [teacher]).backward()
    assert objective.mask_token.grad.abs().sum() > 0
    assert teacher.grad is None


def test_refuses_options_that_cannot_be():
    with pytest.raises(ValueError, match="`ratio` must be above 0, else nothing is generated, got 0"):
        ViTKD("a", "b", ratio=0)
    with pytest.raises(ValueError, match=r"`ratio` must be at least 0 and below 1, got 1\.0"):
        ViTKD("a", "b", ratio=1.0)
    with pytest.raises(ValueError, match=r"`deep` must be a finite number of at least 0, .*got -1\.0"):
        ViTKD("a", "b", deep=-1.0)

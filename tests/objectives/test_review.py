"""Claims about `ReviewKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Progress
from lightning_kd.losses import hierarchical_context
from lightning_kd.objectives import ReviewKD
from lightning_kd.pre_activation import pre_activation_tap
from lightning_kd.taps import Tap

STUDENTS = [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4), torch.randn(2, 6)]
TEACHERS = [torch.randn(2, 5, 8, 8), torch.randn(2, 9, 4, 4), torch.randn(2, 9)]


def test_the_weight_rises_as_published_and_is_never_zero():
    # min(epoch / 20, 1) with epochs counted from 1.
    schedule = ReviewKD("a", "b").weight
    weights = [schedule(Progress(epoch=epoch)) for epoch in range(30)]
    assert weights == pytest.approx([min((epoch + 1) / 20, 1.0) for epoch in range(30)], rel=1e-12)


def test_is_the_sum_of_the_levels(over_features):
    objective = ReviewKD(["a", "b", "c"], ["d", "e", "f"])
    term = over_features(objective, STUDENTS, TEACHERS)
    objective.eval()
    fused = objective.fusion([*STUDENTS[:2], STUDENTS[2][..., None, None]])
    expected = [
        hierarchical_context(fused[0], TEACHERS[0]),
        hierarchical_context(fused[1], TEACHERS[1]),
        (fused[2].flatten(1) - TEACHERS[2]).square().mean(),
    ]
    assert_close(term(STUDENTS, TEACHERS), torch.stack(expected).sum())


def test_is_zero_where_the_fusion_gives_the_teacher(over_features):
    class Given(nn.Module):
        def forward(self, maps):
            return [*TEACHERS[:2], TEACHERS[2][..., None, None]]

    objective = ReviewKD(["a", "b", "c"], ["d", "e", "f"])
    term = over_features(objective, STUDENTS, TEACHERS)
    objective.fusion = Given()
    assert term(STUDENTS, TEACHERS).item() == 0.0


@pytest.mark.parametrize(("middle", "deepest", "expected"), [(None, 6, 6), (None, 700, 512), (32, 6, 32)])
def test_the_middle_width_is_the_deepest_levels_up_to_512(middle, deepest, expected, over_features):
    students = [STUDENTS[0], torch.randn(2, deepest, 4, 4)]
    objective = ReviewKD(["a", "b"], ["c", "d"], middle=middle)
    over_features(objective, students, TEACHERS[:2])
    assert {level.enter[0].out_channels for level in objective.fusion.levels} == {expected}


def test_frames_keep_their_pyramid(over_features):
    students, teachers = [torch.randn(2, 8, 4)], [torch.randn(2, 8, 5)]
    objective = ReviewKD(Tap("a", axes="NTD"), Tap("b", axes="NTD"))
    term = over_features(objective, students, teachers)
    objective.eval()
    fused = objective.fusion([students[0].transpose(1, 2).unsqueeze(2)])[0].squeeze(2)
    assert_close(term(students, teachers), hierarchical_context(fused, teachers[0].transpose(1, 2)))


def test_gives_the_teacher_no_gradient(over_features):
    students, teachers = ([f.clone().requires_grad_() for f in features] for features in (STUDENTS, TEACHERS))
    over_features(ReviewKD(["a", "b", "c"], ["d", "e", "f"]), students, teachers)(students, teachers).backward()
    assert all(student.grad is not None for student in students)
    assert all(teacher.grad is None for teacher in teachers)


def test_trains_as_published_between_pre_activations_and_pooled_features(net, train_three_steps):
    student, teacher = net("test_resnet"), net("test_byobnet")
    places = [pre_activation_tap(student, f"layer{i}") for i in (1, 2, 3, 4)]
    targets = [pre_activation_tap(teacher, f"stages.{i}") for i in (0, 1, 2, 3)]
    objective = ReviewKD([*places, "global_pool"], [*targets, "head.global_pool"])
    run = train_three_steps(student, teacher, [objective])
    assert run.metrics["kd/review"] > 0


def test_refuses_a_middle_width_of_nothing():
    with pytest.raises(ValueError, match="`middle` must be a finite number above 0, got 0"):
        ReviewKD("a", "b", middle=0)

"""Claims about `FRDKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.adapters.regressors import TokenReverse
from lightning_kd.errors import LayoutError
from lightning_kd.objectives import FRDKD
from lightning_kd.taps import Tap


def test_the_published_weight_is_the_default():
    assert FRDKD("a", "b").weight == 2.0


def test_equal_tokens_are_compared_as_they_are_and_count_in_the_mean(over_features):
    students, teachers = [torch.randn(2, 17, 6), torch.randn(2, 5, 6)], [torch.randn(2, 17, 6), torch.randn(2, 17, 6)]
    objective = FRDKD(["a", "b"], ["c", "d"])
    term = over_features(objective, students, teachers)
    assert isinstance(objective.adapters[0], nn.Identity)
    recovered = objective.adapters[1](students[1])
    expected = ((students[0] - teachers[0]).square().mean() + (recovered - teachers[1]).square().mean()) / 2
    assert_close(term(students, teachers), expected)


def test_class_tokens_are_left_out(over_features):
    student, teacher = torch.randn(2, 6, 4), torch.randn(2, 19, 4)
    objective = FRDKD(Tap("a", prefix_tokens=1), Tap("b", prefix_tokens=2))
    term = over_features(objective, [student], [teacher])
    recovered = objective.adapters[0](student[:, 1:])
    assert recovered.shape == (2, 17, 4)
    assert_close(term([student], [teacher]), (recovered - teacher[:, 2:]).square().mean())


def test_is_zero_at_equality_before_the_first_slimming(over_features):
    tokens = torch.randn(2, 17, 6)
    assert over_features(FRDKD("a", "b"), [tokens], [tokens])([tokens], [tokens.clone()]).item() == 0.0


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 3, 4, 4), (2, 17, 6)), ((2, 17, 6), (2, 3, 4, 4)), ((2, 7, 6), (2, 13, 6))]
)
def test_any_number_of_tokens_or_positions_meets_any_other(student, teacher, over_features):
    features = torch.randn(student, requires_grad=True), torch.randn(teacher, requires_grad=True)
    over_features(FRDKD("a", "b"), [features[0]], [features[1]])([features[0]], [features[1]]).backward()
    assert (features[0].grad != 0).any()
    assert features[1].grad is None


def test_every_teacher_patch_is_recovered_from_all_student_patches():
    reverse = TokenReverse(tokens=3, recovered=5, width=4)
    tokens = torch.randn(1, 3, 4, requires_grad=True)
    for index in range(5):
        (gradient,) = torch.autograd.grad(reverse(tokens)[0, index].square().sum(), tokens)
        assert (gradient.abs().sum(2) > 0).all()


def test_the_reverse_module_has_the_published_sizes_and_initial_weights():
    reverse = TokenReverse(tokens=3, recovered=5, width=4)
    assert [tuple(p.shape) for p in reverse.across_tokens.parameters()] == [(20, 3), (20,), (5, 20), (5,)]
    assert not any(p.any() for p in reverse.parameters() if p.shape in ((20,), (5,)))
    wide = TokenReverse(tokens=50, recovered=50, width=4).across_tokens
    assert [wide[i].weight.std().item() for i in (0, 2)] == pytest.approx([0.02, 0.02], rel=0.1)
    # The token mixing has no shortcut, the channel mixing has one.
    nn.init.zeros_(reverse.across_channels[2].weight)
    nn.init.zeros_(reverse.across_channels[2].bias)
    tokens = torch.randn(2, 3, 4)
    assert_close(reverse(tokens), reverse.across_tokens(reverse.token_norm(tokens).transpose(1, 2)).transpose(1, 2))


def test_refuses_pooled_features(over_features):
    with pytest.raises(LayoutError, match=r"`a` must give tokens \(N, L, D\) or a map, got shape \(2, 6\)"):
        over_features(FRDKD("a", "b"), [torch.randn(2, 6)], [torch.randn(2, 17, 6)])

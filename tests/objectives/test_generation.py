"""Claims about `MGDKD`."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.objectives import MGDKD


def test_the_published_values_for_classification_are_the_defaults():
    objective = MGDKD("a", "b")
    assert (objective.hides, objective.ratio, objective.weight) == ("channels", 0.15, 7e-5)


def test_is_the_summed_error_of_what_is_generated_over_the_batch(over_features):
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)
    objective = MGDKD("a", "b", ratio=0.0)
    term = over_features(objective, [student], [teacher])
    generated = objective.generators[0](objective.adapters[0].projection(student))
    assert_close(term([student], [teacher]), (generated - teacher).square().sum() / 2)


def test_the_student_is_projected_only_where_widths_differ(over_features):
    same, other = MGDKD("a", "b"), MGDKD("a", "b")
    over_features(same, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 3, 4, 4)])
    over_features(other, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 6, 4, 4)])
    assert isinstance(same.adapters[0].projection, nn.Identity)
    assert other.adapters[0].projection.kernel_size == (1, 1)
    assert [type(layer) for layer in same.generators[0]] == [nn.Conv2d, nn.ReLU, nn.Conv2d]


@pytest.mark.parametrize(("hides", "whole_axes"), [("channels", (2, 3)), ("positions", (1,))])
def test_hides_whole_channels_or_whole_positions(hides, whole_axes, over_features):
    feature = torch.ones(4, 32, 8, 8)
    objective = MGDKD("a", "b", hides=hides, ratio=0.5)
    term = over_features(objective, [feature], [feature])
    seen = []
    objective.generators[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    term([feature], [feature])
    share = seen[0].mean(whole_axes)
    assert set(share.unique().tolist()) == {0.0, 1.0}
    assert share.mean().item() == pytest.approx(0.5, abs=0.2)


def test_what_is_hidden_gives_the_student_no_gradient(over_features):
    feature = torch.randn(2, 8, 4, 4, requires_grad=True)
    objective = MGDKD("a", "b", ratio=0.5)
    term = over_features(objective, [feature], [feature])
    torch.manual_seed(1)
    term([feature], [feature.detach()]).backward()
    torch.manual_seed(1)
    hidden = torch.rand(2, 8, 1, 1) < 0.5
    assert hidden.any()
    assert ((feature.grad == 0).all((2, 3)) == hidden.flatten(1)).all()


def test_refuses_options_that_cannot_be():
    with pytest.raises(ValueError, match=r"`hides` must be one of 'channels', 'positions', got 'pixels'"):
        MGDKD("a", "b", hides="pixels")
    with pytest.raises(ValueError, match=r"`ratio` must be at least 0 and below 1, got 1\.0"):
        MGDKD("a", "b", ratio=1.0)

"""Claims about DeiTKD beyond those of test_logits.py; with the token itself: tests/students."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.losses import class_balanced_weights, hard_target_cross_entropy
from lightning_kd.objectives import DeiTKD
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation

WEIGHTS = class_balanced_weights([500, 50, 5])


def term(objective, student, teacher, epoch=0):
    return objective(
        Observation(Inputs(), (torch.full_like(student, 9.0), student)),
        Observation(Inputs(), teacher),
        Step(Progress(epoch=epoch)),
    )


@pytest.mark.parametrize(("epoch", "weighted"), [(0, False), (1099, False), (1100, True), (1199, True)])
def test_weights_count_from_their_epoch_on(epoch, weighted):
    student, teacher = torch.randn(2, 8, 3).unbind()
    objective = DeiTKD(class_weights=WEIGHTS, reweight_from=1100)
    expected = hard_target_cross_entropy(student, teacher, class_weights=WEIGHTS if weighted else None)
    assert_close(term(objective, student, teacher, epoch), expected)


def test_weights_may_be_a_list_and_stay_out_of_checkpoints():
    objective = DeiTKD(class_weights=WEIGHTS.tolist())
    student, teacher = torch.randn(2, 8, 3).unbind()
    assert_close(term(objective, student, teacher), hard_target_cross_entropy(student, teacher, class_weights=WEIGHTS))
    assert objective.state_dict() == {}


def test_teaches_the_second_head_only(train_three_steps, net):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = net("test_vit", classes=0)
            width = self.backbone.num_features
            self.head, self.head_dist = nn.Linear(width, 10), nn.Linear(width, 10)

        def forward(self, images):
            features = self.backbone(images)
            return self.head(features), self.head_dist(features)

    student, teacher = TwoHeads(), net("test_resnet")
    trained = train_three_steps(student, teacher, [DeiTKD()], task_weight=0.5)
    assert trained.metrics["kd/deit"] > 0
    assert "net.head_dist.weight" in trained.module.gradients


def test_refuses_options_without_effect():
    with pytest.raises(SetupError, match=r"`temperature` must be left out with kind='hard', got 3\.0"):
        DeiTKD(temperature=3.0)
    with pytest.raises(SetupError, match="`class_weights` must be left out with kind='soft'"):
        DeiTKD(kind="soft", class_weights=WEIGHTS)
    with pytest.raises(SetupError, match=r"`label_smoothing` must be left out with kind='soft', got 0\.1"):
        DeiTKD(kind="soft", label_smoothing=0.1)
    with pytest.raises(SetupError, match="`reweight_from` must be left out without class_weights, got 5"):
        DeiTKD(reweight_from=5)
    with pytest.raises(ValueError, match="`kind` must be one of 'hard', 'soft', got 'softly'"):
        DeiTKD(kind="softly")

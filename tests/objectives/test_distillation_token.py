"""Claims about DeiT and DeiT-LT: a student with a distillation token, and what teaches it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import Distiller, FrozenTeacher
from lightning_kd.losses import class_balanced_weights
from lightning_kd.objectives import DeiTKD
from lightning_kd.schedules import Progress
from lightning_kd.students import with_distillation_token
from lightning_kd.teachers.views import ResizedView

ZS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], dtype=torch.float64)
ZT = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], dtype=torch.float64)
Y = torch.tensor([0, 1])


class Says(nn.Module):
    """A network whose logits are its parameters, once per token."""

    def __init__(self, logits, tokens):
        super().__init__()
        self.logits = nn.ParameterList(logits.clone() for _ in range(tokens))

    def forward(self, _):
        return tuple(self.logits) if len(self.logits) > 1 else self.logits[0]


def total(objective, task_weight, progress=None):
    distiller = Distiller(Says(ZS, 2), Says(ZT, 1), [objective], task_weight=task_weight)
    with distiller.watch() as calls:
        of_class, _ = distiller.student(torch.zeros(2, 1, dtype=torch.float64))
    return distiller.losses(F.cross_entropy(of_class, Y), calls, progress or Progress()).total.item()


def test_hard_distillation_equals_the_published_value():
    # The teacher decides for the labels, so that both halves are the same cross-entropy.
    assert total(DeiTKD(weight=0.5), 0.5) == pytest.approx(0.4321426543, rel=1e-6)


def test_soft_distillation_equals_the_published_value():
    assert total(DeiTKD(kind="soft", temperature=3.0, weight=1.0), 0.0) == pytest.approx(0.0795834735, rel=1e-6)


@pytest.mark.parametrize(("epoch", "expected"), [(1099, 0.4321426543), (1100, 0.5875644124)])
def test_rare_classes_weigh_more_from_the_given_epoch_on(epoch, expected):
    weights = class_balanced_weights([500, 50, 5])
    objective = DeiTKD(class_weights=weights, reweight_from=1100, weight=1.0)
    assert total(objective, 0.0, Progress(epoch=epoch)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("name", ["test_resnet", "test_convnext"])
def test_a_convolutional_teacher_teaches_the_token(train_three_steps, net, name, kind):
    student = with_distillation_token(net("test_vit"))
    result = train_three_steps(student, net(name), [DeiTKD(kind=kind)], task_weight=0.5)
    assert {"net.dist_token", "net.head_dist.weight", "net.head.weight"} <= result.module.gradients
    assert student.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def test_the_teacher_moves_the_distillation_head_and_not_the_class_head(net, student_gradient):
    student = with_distillation_token(net("test_vit"))
    reached = student_gradient(Distiller(student, net("test_resnet"), [DeiTKD()]), torch.randn(2, 3, 64, 64))
    assert "head_dist.weight" in reached
    assert "head.weight" not in reached


def test_deit_lt_trains_with_a_teacher_of_another_size(train_three_steps, net):
    sizes = []
    inner = net("test_resnet")
    inner.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[2:])))
    objective = DeiTKD(class_weights=class_balanced_weights([2**k for k in range(10)]), reweight_from=0)
    teacher = FrozenTeacher(inner, input_transform=ResizedView(32))
    train_three_steps(with_distillation_token(net("test_vit")), teacher, [objective], task_weight=0.5)
    assert set(sizes) == {(32, 32)}

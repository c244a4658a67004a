"""Claims about distillation on the classes that a network knew before."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import ShapeError
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives import OldClassesKD

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def losses_of(student, teacher):
    distiller = Distiller(student, teacher, [OldClassesKD(temperature=3.0)])
    with distiller.watch() as calls:
        student(X)
    return distiller.losses(torch.zeros(()), calls)


def test_only_the_old_classes_are_compared():
    student, teacher = nn.Linear(4, 5), nn.Linear(4, 3)
    losses = losses_of(student, teacher)
    expected = soft_target_kl(student(X)[:, :3], teacher(X), temperature=3.0)
    assert_close(losses.terms["old_classes"], expected)
    losses.total.backward()
    assert bool((student.weight.grad[:3] != 0).any())
    assert torch.equal(student.weight.grad[3:], torch.zeros(2, 4))


def test_mappings_are_read_as_by_other_objectives():
    class Mapped(nn.Linear):
        def forward(self, x):
            return {"logits": super().forward(x)}

    student, teacher = Mapped(4, 5), Mapped(4, 3)
    assert float(losses_of(student, teacher).terms["old_classes"].detach()) > 0


def test_a_teacher_that_knows_as_many_classes_is_refused():
    with pytest.raises(ShapeError, match="more classes apart than the teacher's 3, got 3"):
        losses_of(nn.Linear(4, 3), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, got 0"):
        OldClassesKD(temperature=0)

"""The adversary learns to tell both apart; the student learns the opposite, or, as published, the same."""

import copy

import pytest
import torch
from torch import nn

from lightning_kd import Distiller, EnsembleTeacher, FrozenTeacher
from lightning_kd.losses import discrimination
from lightning_kd.objectives import DiscriminatorKD

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


def setting(adversary, teacher=None, classes=16):
    torch.manual_seed(0)
    student = nn.Linear(4, classes)
    term = DiscriminatorKD(adversary=adversary)
    teacher = nn.Linear(4, classes) if teacher is None else teacher
    distiller = Distiller(student, teacher, [term]).build([X])
    with distiller.watch() as calls:
        logits = student(X)
    return student, term, distiller, calls, logits


@pytest.mark.parametrize(("adversary", "sign"), [("reversed", -1.0), ("joint", 1.0)])
def test_the_student_goes_against_the_discriminator_unless_as_published(adversary, sign):
    student, term, distiller, calls, logits = setting(adversary)
    loss = distiller.losses(logits.sum() * 0, calls).terms["discriminator"]
    loss.backward()
    own = [parameter.grad.clone() for parameter in term.parameters()]
    with torch.no_grad():
        known = distiller.teacher(X)
    plain = copy.deepcopy(term.discriminator)
    free = logits.detach().requires_grad_()
    expected = discrimination(plain(free), plain(known))
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(student.bias.grad, sign * free.grad.sum(0))
    for ours, theirs in zip(own, plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad)  # the discriminator always lowers its loss


def test_it_starts_with_layers_of_an_eighth_and_a_sixty_fourth_of_the_classes():
    _, term, *_ = setting("reversed", classes=1000)
    assert [layer.out_features for layer in term.discriminator if isinstance(layer, nn.Linear)] == [125, 15, 2]
    _, small, *_ = setting("joint")
    assert [layer.out_features for layer in small.discriminator if isinstance(layer, nn.Linear)] == [2, 2, 2]
    assert isinstance(small.discriminator[-1], nn.ReLU)
    assert isinstance(term.discriminator[-1], nn.Linear)


def test_without_weights_the_loss_is_ln_2():
    _, term, distiller, calls, logits = setting("reversed")
    for parameter in term.parameters():
        nn.init.zeros_(parameter)
    assert distiller.losses(logits.sum() * 0, calls).terms["discriminator"].item() == pytest.approx(0.6931471806)


def test_of_an_ensemble_the_mean_of_the_members_logits_is_compared():
    torch.manual_seed(5)
    members = [nn.Linear(4, 16), nn.Linear(4, 16)]
    _, term, distiller, calls, logits = setting("reversed", EnsembleTeacher(members))
    with torch.no_grad():
        mean = (members[0](X) + members[1](X)) / 2
    expected = discrimination(term.discriminator(logits), term.discriminator(mean))
    torch.testing.assert_close(distiller.losses(logits.sum() * 0, calls).terms["discriminator"], expected)


def test_the_teacher_gets_no_gradient():
    teacher = FrozenTeacher(nn.Linear(4, 16))
    *_, distiller, calls, logits = setting("joint", teacher)
    distiller.losses(logits.sum(), calls).total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_an_unknown_adversary_is_refused():
    with pytest.raises(ValueError, match="`adversary` must be one of 'reversed', 'joint', got 'alternating'"):
        DiscriminatorKD(adversary="alternating")
    assert (
        repr(DiscriminatorKD(weight=0.5))
        == "DiscriminatorKD(\n  adversary='reversed', weight=0.5\n  (discriminator): Identity()\n)"
    )

"""Every kind of teacher is refused where it cannot serve, and named in the message."""

import pytest
import torch
from torch import nn

from lightning_kd import CKAKD, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Tap
from lightning_kd.errors import SetupError, TapError
from lightning_kd.taps import Inputs, Observation
from lightning_kd.teachers import BaseTeacher, FrozenTeacher, Teacher
from lightning_kd.teachers.frozen import unwrapped


class Remembered(BaseTeacher):
    """Says what the labels and the sample indices of the batch are: a cache at its smallest."""

    module = None
    serves = ("output",)

    def observe(self, inputs, *, step=None, taps=None, stop=False, copy_overwritten=False):
        logits = torch.zeros(len(inputs.tensors()[0]), 3)
        if step is not None:
            logits = nn.functional.one_hot(step.indices % 3, 3).float()
        return Observation(inputs, logits)


class Pooled(Remembered):
    """Remembers one vector per sample, at one tap."""

    serves = ("features",)

    def tap(self, taps):
        self.taps = list(taps)

    def observe(self, inputs, *, step=None, taps=None, stop=False, copy_overwritten=False):
        return Observation(inputs, None, {tap: torch.ones(len(inputs.tensors()[0]), 5) for tap in self.taps})


def test_a_frozen_teacher_is_a_teacher_and_a_plain_network_is_none():
    assert isinstance(FrozenTeacher(nn.Linear(2, 2)), Teacher)
    assert isinstance(Remembered(), Teacher)
    assert not isinstance(nn.Linear(2, 2), Teacher)


def test_a_teacher_without_a_network_sees_the_step():
    student = nn.Linear(4, 3)
    distiller = Distiller(student, Remembered(), [LogitKD(temperature=1.0)])
    images = torch.randn(2, 4)
    with distiller.watch() as calls:
        logits = student(images)
    batch = {"x": images, "index": torch.tensor([4, 2])}
    losses = distiller.losses(logits.sum() * 0, calls, batch=batch)
    target = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # 4 % 3 and 2 % 3
    log_p, log_q = target.log_softmax(1), logits.log_softmax(1)
    torch.testing.assert_close(losses.terms["logit"], (log_p.exp() * (log_p - log_q)).sum(1).mean())


def test_features_of_a_teacher_without_a_network_are_distilled():
    student = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    term = FeatureKD("0", "pooled", normalization="none")
    distiller = Distiller(student, Pooled(), [term]).build([torch.zeros(2, 4)])
    with distiller.watch() as calls:
        task = student(torch.randn(2, 4)).sum()
    projected = term.adapters[0].projection(calls[0].features[Tap("0")])
    assert projected.shape == (2, 5)
    torch.testing.assert_close(distiller.losses(task, calls).terms["feature"], (projected - 1).square().mean())


@pytest.mark.parametrize(
    ("teacher", "objective", "message"),
    [
        (
            Remembered(),
            FeatureKD("0", "0"),
            r"'feature' \(FeatureKD\) reads the teacher's features, and this Remembered",
        ),
        (Pooled(), LogitKD(), r"'logit' \(LogitKD\) reads the teacher's output, and this Pooled serves features only"),
        (Remembered(), CKAKD.matched(), "must have a network to look at here, and Remembered has none"),
    ],
)
def test_what_a_teacher_does_not_serve_is_refused(teacher, objective, message):
    student = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(SetupError, match=message):
        Distiller(student, teacher, [objective]).build([torch.zeros(8, 4)])


def test_a_transform_belongs_to_the_teacher_itself():
    with pytest.raises(SetupError, match="must be given to the Remembered itself"):
        KnowledgeDistillation(Remembered(), input_transform=torch.abs)


def test_the_base_refuses_what_it_cannot_do():
    class Silent(BaseTeacher):
        module = None

    with pytest.raises(SetupError, match=r"`Silent` has no features, so the taps \['layer4'\] cannot be read"):
        Silent().tap([Tap("layer4")])
    Silent().tap([])
    with pytest.raises(
        SetupError, match="the state of a teacher that changes, with \\['weights'\\], and Silent has none"
    ):
        Silent().load_training_state({"weights": {}})
    with pytest.raises(NotImplementedError):
        Silent().observe(Inputs())


def test_the_network_behind_a_teacher():
    net = nn.Linear(2, 2)
    assert unwrapped(net) is net
    assert unwrapped(FrozenTeacher(net)) is net
    with pytest.raises(SetupError, match="and Remembered has none"):
        unwrapped(Remembered())


def test_a_wrong_tap_of_a_network_still_names_the_nearest():
    with pytest.raises(TapError, match=r"nearest: 'weight'|nearest: '0'"):
        Distiller(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.ReLU()), [FeatureKD("0", "1")]).attach()

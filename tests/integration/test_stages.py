"""Objectives that rest, self-distillation without a teacher, and stages of one fit."""

import copy

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd import CKAKD, Distiller, FeatureKD, KnowledgeDistillation, LogitKD, Objective, Progress
from lightning_kd.errors import SetupError
from lightning_kd.schedules import Window


class Confidence(Objective):
    """Self-distillation at its smallest: the student's own output, and the labels of the batch."""

    needs_examples = False
    needs_teacher = False

    def __init__(self):
        super().__init__(name="confidence", weight=1.0)
        self.labels = []

    @override
    def forward(self, student, teacher, step) -> Tensor:
        assert teacher.output is None
        self.labels.append(step.labels)
        return student.output.square().mean()


class Record(L.Callback):
    """Every value that was logged, step by step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def stages():
    """Features in the first epoch, logits from the second on."""
    return [
        FeatureKD("body", "blocks", weight=Window(1.0, end=1), projection="always"),
        LogitKD(weight=Window(1.0, begin=1)),
    ]


class Deep(nn.Module):
    """A teacher whose head counts its runs."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4, 5)
        self.runs = 0
        self.head.register_forward_hook(self._count)

    def _count(self, *_):
        self.runs += 1

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


def test_a_resting_objective_is_neither_computed_nor_logged(classifier, loader, trainer):
    record = Record()
    kd = KnowledgeDistillation(Deep(), student="net", objectives=stages())
    trainer(callbacks=[kd, record], max_epochs=2).fit(classifier(), loader())
    first, last = record.steps[0], record.steps[-1]
    assert "kd/logit" not in first
    assert first["kd/total"] - first["kd/task"] == pytest.approx(first["kd/feature"], rel=1e-5)
    assert last["kd/total"] - last["kd/task"] == pytest.approx(last["kd/logit"], rel=1e-4)
    assert last["kd/feature"] == record.steps[len(record.steps) // 2 - 1]["kd/feature"]


def test_a_teacher_whose_output_nobody_reads_stops_at_its_last_tap(classifier):
    student, teacher, x = classifier().net, Deep(), torch.randn(4, 3, 8, 8)
    distiller = Distiller(student, teacher, stages()).build([x])
    for epoch, runs in [(0, 0), (1, 1)]:
        teacher.runs = 0
        progress = Progress(epoch=epoch)
        with distiller.watch(progress) as calls:
            student(x)
        distiller.losses(torch.zeros(()), calls, progress)
        assert teacher.runs == runs


def test_a_step_without_active_objectives_is_the_plain_step(classifier, teacher):
    student, x = classifier().net, torch.randn(4, 3, 8, 8)
    distiller = Distiller(student, teacher, [LogitKD(weight=Window(1.0, begin=5))], task_weight=0.5)
    losses = distiller.losses(torch.tensor(2.0), [])
    assert (float(losses.total), losses.terms, losses.weights) == (1.0, {}, {"task": 0.5, "logit": 0.0})
    with distiller.watch(Progress(epoch=5)) as calls:
        student(x)
    assert distiller.losses(torch.tensor(2.0), calls, Progress(epoch=5)).terms["logit"] > 0


def test_self_distillation_needs_no_teacher_and_sees_the_labels(classifier, loader, trainer):
    objective = Confidence()
    record = Record()
    kd = KnowledgeDistillation(None, student="net", objectives=[objective])
    trainer(callbacks=[kd, record]).fit(classifier(), loader())
    steps = record.steps
    assert all(step["kd/confidence"] > 0 for step in steps)
    assert len(objective.labels) == len(steps)
    assert all(labels.dtype == torch.long for labels in objective.labels)


def test_objectives_that_need_a_teacher_are_refused_without_one(classifier):
    for objectives in (None, [LogitKD()], [Confidence(), CKAKD("body", "body")]):
        with pytest.raises(SetupError, match=r"`teacher` must be a torch\.nn\.Module.*got None"):
            KnowledgeDistillation(None, objectives=copy.deepcopy(objectives))
        with pytest.raises(SetupError, match=r"`teacher` must be a torch\.nn\.Module.*got None"):
            Distiller(classifier().net, None, objectives)


def test_the_total_number_of_steps_is_known_in_training(classifier, loader, trainer, teacher):
    seen = []

    def weight(progress):
        seen.append(progress.total_steps)
        return 1.0

    kd = KnowledgeDistillation(teacher, objectives=[LogitKD(weight=weight)], student="net")
    trainer(callbacks=[kd], max_epochs=2).fit(classifier(), loader())
    assert set(seen) == {2 * len(loader())}

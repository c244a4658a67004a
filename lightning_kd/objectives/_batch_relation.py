"""What objectives on the relations between samples share."""

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd.adapters import Geometry, Probe
from lightning_kd.distributed import joint_batch
from lightning_kd.layout import pooled
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class BatchRelation(PairedObjective):
    """An objective on how the samples of a batch relate; over several pairs of taps the term is the mean.

    Args:
        student: Place or places in the student.
        teacher: As many places in the teacher.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        name: Name of the term.
        weight: Factor of the term.

    Raises:
        SetupError: If the numbers of places differ.
    """

    needs_teacher_output = False

    def __init__(self, student: Places, teacher: Places, *, gather: bool, name: str, weight: Weight) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.gather = gather
        self.geometries: list[tuple[Geometry, Geometry]] = []

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in pairs]

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = [self.examples(s, t) for s, t in self.read(student, teacher)]
        return torch.stack([self.relate(*joint_batch(s, t, gather=self.gather)) for s, t in pairs]).mean()

    def read(self, student: Observation, teacher: Observation) -> list[tuple[Tensor, Tensor]]:
        """Features of each pair, channels first."""
        pairs = zip(self.geometries, self.features(student, teacher), strict=True)
        return [(s_is.layout.channels_first(s), t_is.layout.channels_first(t)) for (s_is, t_is), (s, t) in pairs]

    def examples(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """What is related, a row each: samples, by their features averaged over the grid, unless overridden."""
        return pooled(student), pooled(teacher)

    @abstractmethod
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Term of one pair, from the examples of the batch."""

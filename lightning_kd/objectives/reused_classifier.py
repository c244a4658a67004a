"""Distillation of the last map into a student that ends in its teacher's classifier."""

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError
from lightning_kd.layout import common_grid
from lightning_kd.losses import feature_mse
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap

PROJECTED = Tap("projector", axes="NCHW")


class SimKD(MapObjective):
    """Mean squared error between the student's projected last map and the teacher's last map.

    The student comes from `lightning_kd.students.with_teacher_classifier`: it holds the projector, and ends in the
    teacher's classifier. As published nothing else is minimised, neither on labels nor on class scores: give the task
    loss the weight 0, ``KnowledgeDistillation(..., task_weight=0.0)``. A teacher with the finer grid is averaged to the
    student's.

    Args:
        teacher: Place of the teacher's last map, the ``last_map`` that the student was made with.
        student: Place of the projected map.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the student's map has not the teacher's width.

    Source:
        Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", arXiv:2203.14001.

    Example:
        >>> SimKD("layer4").student_taps[0].path
        'projector'
    """

    def __init__(
        self,
        teacher: str | Tap,
        *,
        student: str | Tap = PROJECTED,
        weight: Weight = 1.0,
        name: str = "simkd",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        for s, t in self.geometries:
            if s.width != t.width:
                raise SetupError(
                    f"the student's projected map must have the teacher's {t.width} channels, got {s.width}: make the "
                    "student by with_teacher_classifier(..., last_map=...), with the place given here."
                )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return torch.stack([feature_mse(*common_grid(*pair)) for pair in self.maps(student, teacher)]).mean()

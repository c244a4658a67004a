"""Distillation of channels as distributions over the positions."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Align, Probe, Projection
from lightning_kd.dense import labelled
from lightning_kd.losses import channel_wise_kl
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class CWDKD(MapObjective):
    """Channel-wise distillation: for each channel or class, the student looks where the teacher looks.

    Both features are averaged to the smaller grid, and a 1x1 projection brings the student to the teacher's width where
    they differ. Over several pairs the term is their sum.

    Args:
        student: Place or places in the student; the default is its output, class scores of shape ``(N, K, H, W)``.
        teacher: As many places in the teacher.
        temperature: Softmax temperature above 0, dimensionless: 4 is published for class scores, 1 for maps.
        ignore_index: Class index of pixels without a label, which are left out; labels of shape ``(N, H, W)`` are then
            read from the batch. ``None`` looks at no labels, as published.
        projection: ``"auto"`` projects maps only if the widths differ, ``"always"`` even if not, ``"none"`` never;
            outputs are never projected.
        weight: Factor of the term; 3 is published for class scores.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ShapeError: At setup, if the outputs of student and teacher differ in classes.
        ValueError: If ``temperature`` is not a finite number above 0.

    Source:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", arXiv:2011.13256. Leaving out pixels and
        averaging to the smaller grid are ours.

    Example:
        >>> CWDKD().temperature, CWDKD("layer4", "layer4", temperature=1.0).student_taps[0].path
        (4.0, 'layer4')
    """

    needs_positions = True

    def __init__(
        self,
        student: Places = "",
        teacher: Places = "",
        *,
        temperature: float = 4.0,
        ignore_index: int | None = None,
        projection: Projection = "auto",
        weight: Weight = 3.0,
        name: str = "cwd",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.ignore_index = ignore_index
        self.projection = projection
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        pairs = zip(self.student_taps, self.teacher_taps, self.geometries, strict=True)
        self.adapters = nn.ModuleList(
            Align(*geometries, projection="none" if _is_output(s) and _is_output(t) else self.projection)
            for s, t, geometries in pairs
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        for align, pair in zip(self.adapters, self.features(student, teacher), strict=True):
            s, t = align(*pair)
            mask = None if self.ignore_index is None else labelled(step.labels, tuple(s.shape[2:]), self.ignore_index)
            terms.append(channel_wise_kl(s, t, temperature=self.temperature, mask=mask))
        return torch.stack(terms).sum()


def _is_output(tap: Tap) -> bool:
    return not tap.path and tap.at == "output"

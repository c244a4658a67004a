"""Distillation of patch embeddings: what a network makes of its patches before it mixes them."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Align, Geometry, Probe
from lightning_kd.errors import SetupError
from lightning_kd.families import patch_embedding_paths
from lightning_kd.losses import patch_embedding_alignment
from lightning_kd.losses.stages import PATCH_EMBEDDING_WEIGHTS
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class PatchEmbeddingKD(Objective):
    """Patch embedding alignment: a learned linear map from each student embedding to the teacher's.

    With equally many embeddings on both sides they pair in order; else each embedding of the side with fewer (a plain
    ViT has one) pairs with the one of nearest grid on the other side.

    Args:
        student: Places of the student's patch embeddings; ``None`` finds them by the family's convention.
        teacher: Likewise for the teacher.
        stage_weights: Weight of each pair, finest grid first; ``None`` takes the last of the published
            (0.1, 0.1, 0.5, 1.0), one per pair.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the embeddings of a network are not known, or the weights are not one per pair.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393; the pairing of plain transformers and convolutional stems is ours.

    Example:
        >>> PatchEmbeddingKD(weight=0.5).name
        'patch_embedding'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places | None = None,
        teacher: Places | None = None,
        *,
        stage_weights: Sequence[float] | None = None,
        weight: Weight = 1.0,
        name: str = "patch_embedding",
    ) -> None:
        super().__init__(name=name, weight=weight)
        self._declared = (student, teacher)
        self.stage_weights = None if stage_weights is None else tuple(stage_weights)
        self.pairs: list[tuple[Tap, Tap]] = []
        self.adapters = nn.ModuleList()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        places = [
            patch_embedding_paths(model, name) if declared is None else declared
            for declared, model, name in zip(self._declared, (student, teacher), ("student", "teacher"), strict=True)
        ]
        self.student_taps, self.teacher_taps = (as_taps(place) for place in places)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        students = {tap: student.geometry(tap) for tap in self.student_taps}
        teachers = {tap: teacher.geometry(tap) for tap in self.teacher_taps}
        if len(students) <= len(teachers):
            self.pairs = list(zip(students, _counterparts(students, teachers), strict=True))
        else:
            self.pairs = list(zip(_counterparts(teachers, students), teachers, strict=True))
        self._check_weights()
        self.adapters = nn.ModuleList(Align(students[s], teachers[t], projection="always") for s, t in self.pairs)

    def _check_weights(self) -> None:
        given = PATCH_EMBEDDING_WEIGHTS[-len(self.pairs) :] if self.stage_weights is None else self.stage_weights
        if len(given) != len(self.pairs):
            raise SetupError(
                f"`stage_weights` must hold one weight per pair of patch embeddings, got {len(given)} for the pairs "
                f"{[(s.path, t.path) for s, t in self.pairs]}."
            )
        self._weights = tuple(given)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        aligned = [
            align(student.features[s], teacher.features[t])
            for align, (s, t) in zip(self.adapters, self.pairs, strict=True)
        ]
        students, teachers = zip(*aligned, strict=True)
        return patch_embedding_alignment(students, teachers, weights=self._weights)


def _counterparts(fewer: dict[Tap, Geometry], more: dict[Tap, Geometry]) -> list[Tap]:
    if len(fewer) == len(more):
        return list(more)
    return [min(more, key=lambda tap: _distance(more[tap], geometry)) for geometry in fewer.values()]


def _distance(a: Geometry, b: Geometry) -> float:
    """How far two grids are apart, in octaves of cells."""
    return abs(math.log2(max(math.prod(a.grid), 1)) - math.log2(max(math.prod(b.grid), 1)))

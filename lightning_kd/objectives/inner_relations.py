"""Distillation of relations inside each sample: between its channels, and between its positions."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Align, Geometry, Probe, Projection
from lightning_kd.errors import SetupError
from lightning_kd.layout import common_grid
from lightning_kd.losses import inter_channel_correlation, patch_similarity
from lightning_kd.losses.inner_relations import MAX_POSITIONS, check_max_positions
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class ICKD(PairedObjective):
    """Inter-channel correlation: which of a sample's channels are active together.

    Class and register tokens are dropped, both sides are averaged to the smaller grid, and a learned 1x1 projection
    brings the student to the teacher's width where they differ. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps, usually the last map.
        teacher: As many places in the teacher.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.

    Source:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
        arXiv:2202.03680; the alignment across architectures is ours, and so is the weight of 1.

    Example:
        >>> ICKD("layer4", "blocks.11").name
        'ickd'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        projection: Projection = "auto",
        weight: Weight = 1.0,
        name: str = "ickd",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.projection = projection
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.adapters = nn.ModuleList(
            Align(student.geometry(s), teacher.geometry(t), projection=self.projection) for s, t in pairs
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = [
            inter_channel_correlation(*align(s, t))
            for align, (s, t) in zip(self.adapters, self.features(student, teacher), strict=True)
        ]
        return torch.stack(terms).mean()


class PatchSimilarityKD(PairedObjective):
    """How alike the patches of an image are to each other, across architectures: no adapter, no equal widths.

    Class and register tokens are dropped and both sides are averaged to the smaller grid. Over several pairs the term
    is their mean.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        max_positions: Most positions of an image to compare: of more, evenly spaced ones are taken.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ; at setup, if a pair has fewer than two positions in common.
        ValueError: If ``max_positions`` is below 2.

    Source:
        Ours, see `lightning_kd.losses.patch_similarity`.

    Example:
        >>> PatchSimilarityKD("layer4", "blocks.11")
        PatchSimilarityKD(max_positions=512)
    """

    needs_teacher_output = False
    needs_positions = True

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        max_positions: int = MAX_POSITIONS,
        weight: Weight = 1.0,
        name: str = "patch_similarity",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_max_positions(max_positions)
        self.max_positions = max_positions
        self.geometries: list[tuple[Geometry, Geometry]] = []

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in pairs]
        for (s, t), s_tap, t_tap in zip(self.geometries, self.student_taps, self.teacher_taps, strict=True):
            if not s.grid or not t.grid or max(map(min, zip(s.grid, t.grid, strict=False))) < 2:
                raise SetupError(
                    f"`{self.name}` compares positions, and {s_tap.path!r} (grid {s.grid}) and {t_tap.path!r} (grid "
                    f"{t.grid}) have fewer than two in common: tap maps or tokens."
                )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = zip(self.geometries, self.features(student, teacher), strict=True)
        terms = [
            patch_similarity(
                *common_grid(s_is.layout.channels_first(s), t_is.layout.channels_first(t)),
                max_positions=self.max_positions,
            )
            for (s_is, t_is), (s, t) in pairs
        ]
        return torch.stack(terms).mean()

    @override
    def extra_repr(self) -> str:
        return f"max_positions={self.max_positions}"

"""Distillation of relations inside each sample: between its channels, and between its positions."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Geometry, Probe, as_map
from lightning_kd.adapters.regressors import channel_embedding
from lightning_kd.errors import SetupError
from lightning_kd.layout import common_grid
from lightning_kd.losses import inter_channel_correlation, patch_similarity
from lightning_kd.losses.inner_relations import MAX_POSITIONS, check_max_positions
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class ICKD(MapObjective):
    """Inter-channel correlation: which of a sample's channels are active together.

    A learned 1x1 convolution without bias, followed by BatchNorm, brings the student to the teacher's channels, also
    where the widths are equal. Each side keeps its grid. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps, usually the last map.
        teacher: As many places in the teacher.
        weight: Factor of the term; 2.5 is published for CIFAR-100, with one pair at the last map.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.

    Source:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
        arXiv:2202.03680, in the form of its CIFAR-100 code. Transformers' tokens as maps, without class and register
        tokens, are ours.

    Example:
        >>> ICKD("layer4", "blocks.11").weight
        2.5
    """

    def __init__(self, student: Places, teacher: Places, *, weight: Weight = 2.5, name: str = "ickd") -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        self.adapters = nn.ModuleList(channel_embedding(s.width, t.width) for s, t in self.geometries)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = zip(self.adapters, self.maps(student, teacher), strict=True)
        return torch.stack([inter_channel_correlation(embed(as_map(s)), t) for embed, (s, t) in pairs]).mean()


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

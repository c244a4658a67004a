"""Distillation of a student with fewer tokens than its teacher: the teacher's tokens are recovered first."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Probe
from lightning_kd.adapters.regressors import TokenReverse
from lightning_kd.errors import LayoutError
from lightning_kd.layout import Layout
from lightning_kd.losses import feature_mse
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, layout_hints


class FRDKD(PairedObjective):
    """Feature recalibration distillation: every teacher patch is recovered from all student patches, then compared.

    Where the numbers of patch tokens differ a `TokenReverse` recovers the teacher's; where they are equal the student's
    are taken as they are, as before the first slimming of SiT. Class and register tokens are left out, as published; a
    map is read as its positions. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        weight: Factor of the term; 2 is published.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        LayoutError: At setup, if a feature is pooled.

    Source:
        Zong et al., "Self-slimmed Vision Transformer", arXiv:2111.12624, where the teacher is the same network without
        slimming. A linear map to a teacher of another width, and reading maps as tokens, are ours.

    Example:
        >>> FRDKD(["blocks.3", "blocks.11"], ["blocks.3", "blocks.11"]).weight
        2.0
    """

    needs_teacher_output = False
    needs_positions = True

    def __init__(self, student: Places, teacher: Places, *, weight: Weight = 2.0, name: str = "frd") -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.adapters = nn.ModuleList()
        self.layouts: list[tuple[Layout, Layout]] = []

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = list(zip(self.student_taps, self.teacher_taps, strict=True))
        self.layouts = [(_layout(student, s), _layout(teacher, t)) for s, t in pairs]
        tokens = self._tokens(student.observation, teacher.observation)
        self.adapters = nn.ModuleList(_recovery(s.shape, t.shape) for s, t in tokens)

    def _tokens(self, student: Observation, teacher: Observation) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.layouts, self.features(student, teacher), strict=True)
        return [(_as_tokens(s, s_layout), _as_tokens(t, t_layout)) for (s_layout, t_layout), (s, t) in pairs]

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = zip(self.adapters, self._tokens(student, teacher), strict=True)
        return torch.stack([feature_mse(recover(s), t) for recover, (s, t) in pairs]).mean()


def _layout(probe: Probe, tap: Tap) -> Layout:
    """Layout of a map, or of tokens, which need fill no grid."""
    feature = probe.observation.features[tap]
    if feature.ndim not in (3, 4):
        raise LayoutError(f"`{tap.path}` must give tokens (N, L, D) or a map, got shape {tuple(feature.shape)}.")
    if feature.ndim == 4:
        return probe.geometry(tap).layout
    prefix_tokens = tap.prefix_tokens
    if prefix_tokens is None:
        prefix_tokens = layout_hints(probe.model, tap.path, probe.observation.inputs).prefix_tokens
    return Layout("NLD", prefix_tokens=prefix_tokens)


def _as_tokens(feature: Tensor, layout: Layout) -> Tensor:
    if layout.axes == "NLD":
        return feature[:, layout.prefix_tokens :]
    return layout.channels_first(feature).flatten(2).transpose(1, 2)


def _recovery(student: torch.Size, teacher: torch.Size) -> nn.Module:
    (_, tokens, width), (_, recovered, teacher_width) = student, teacher
    project = nn.Identity() if width == teacher_width else nn.Linear(width, teacher_width)
    if tokens == recovered:
        return project
    return nn.Sequential(TokenReverse(tokens=tokens, recovered=recovered, width=width), project)

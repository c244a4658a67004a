"""Layer-to-layer distillation of a speech encoder into a copy of itself that is being pruned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative
from lightning_kd.adapters import Probe
from lightning_kd.losses.frame_regression import frame_regression
from lightning_kd.losses.frames import FrameReduction
from lightning_kd.objectives._frames import FrameObjective, aligned_frames, frames_at
from lightning_kd.schedules import Weight
from lightning_kd.speech.encoders import speech_encoder
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class DPHuBERTKD(FrameObjective):
    r"""DPHuBERT: hidden states of chosen layers, each through a linear layer, against the same layers of the teacher.

    .. math::
        L = \operatorname*{mean}_{l, n, t} \left( \frac{1}{D} \lVert W_{g(l)} s^l_{nt} - h^l_{nt} \rVert_1
            - \lambda \cos(W_{g(l)} s^l_{nt}, h^l_{nt}) \right)

    Linear layers start as the identity where widths are equal, and the layers of a group share one. Those that exist
    and fit are kept: pass the objective of the first stage on to the second, as
    `lightning_kd.recipes.dphubert_second_stage` does.

    Args:
        groups: Hidden states that are compared, those in a group with one linear layer: 0 is what enters the first
            layer, ``l`` what leaves the l-th.
        cosine_weight: :math:`\lambda \ge 0`.
        reduction: Mean over ``"frame"``, or ``"utterance"``: each counts the same.
        mask_padding: Whether padded frames are left out; the published code crops, so that there are none.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if there is not exactly one speech encoder in a network, it has no such layer, or its
            LayerDrop is left on.
        ValueError: If ``groups`` names no layer, or one twice, ``cosine_weight`` is negative or ``reduction`` unknown.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.

    Example:
        >>> DPHuBERTKD(groups=[(0,), (2, 4)]).layers
        (0, 2, 4)
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]] = ((0,), (4, 8, 12)),
        *,
        cosine_weight: float = 1.0,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "dphubert",
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, name=name, weight=weight)
        check_not_negative("cosine_weight", cosine_weight)
        self.groups = tuple(tuple(group) for group in groups if group)
        self.layers = tuple(layer for group in self.groups for layer in group)
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"`groups` must name at least one layer and none twice, got {groups!r}.")
        self.cosine_weight = cosine_weight
        self.projections = nn.ModuleList()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        encoders = speech_encoder(student, "student"), speech_encoder(teacher, "teacher")
        for encoder in encoders:
            encoder.check_layerdrop()
        self.student_taps, self.teacher_taps = (
            tuple(encoder.layer(layer) for layer in self.layers) for encoder in encoders
        )

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        first_of_group = [self.layers.index(group[0]) for group in self.groups]
        widths = [
            (
                frames_at(student.observation, self.student_taps[index]).shape[2],
                frames_at(teacher.observation, self.teacher_taps[index]).shape[2],
            )
            for index in first_of_group
        ]
        if [(p.in_features, p.out_features) for p in self.projections if isinstance(p, nn.Linear)] != widths:
            self.projections = nn.ModuleList(_identity(*pair) for pair in widths)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        projections = [p for p, group in zip(self.projections, self.groups, strict=True) for _ in group]
        terms = [
            frame_regression(
                *aligned_frames(
                    projection(frames_at(student, s)), (student, s), (teacher, t), mask_padding=self.mask_padding
                ),
                cosine_weight=self.cosine_weight,
                kind="negative",
                reduction=self.reduction,
            )
            for projection, s, t in zip(projections, self.student_taps, self.teacher_taps, strict=True)
        ]
        return torch.stack(terms).mean()


def _identity(student: int, teacher: int) -> nn.Linear:
    linear = nn.Linear(student, teacher)
    if student == teacher:
        nn.init.eye_(linear.weight)
        nn.init.zeros_(linear.bias)
    return linear

"""Distillation of spatial attention maps."""

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd.losses import AttentionTransfer, attention_transfer
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class ATKD(MapObjective):
    """Attention transfer: the student is active where the teacher is, whatever the channels say. No adapters.

    Prefix tokens are dropped, and the larger map is averaged to the smaller grid. Over several pairs the term is their
    sum.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        power: Power of the activations, at least 1.
        weight: Factor of the term; 1000 is published for CIFAR-100, with a pair at each of three stages. It multiplies
            a mean over positions of maps of length 1, so that a finer grid makes the term smaller.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``power`` is not a whole number of at least 1.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", arXiv:1612.03928; see `attention_transfer`.
        Transformers' tokens as maps are ours.

    Example:
        >>> ATKD(["layer1", "layer2"], ["blocks.3", "blocks.7"]).weight
        1000.0
    """

    needs_positions = True

    def __init__(
        self, student: Places, teacher: Places, *, power: int = 2, weight: Weight = 1000.0, name: str = "at"
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.power = AttentionTransfer(power=power).power

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = [attention_transfer(s, t, power=self.power) for s, t in self.maps(student, teacher)]
        return torch.stack(terms).sum()

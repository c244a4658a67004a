"""Distillation of intermediate features, element by element."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Align, Probe, Projection
from lightning_kd.losses import feature_mse
from lightning_kd.losses.feature import Normalization
from lightning_kd.objectives.base import Matching, PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class FeatureKD(PairedObjective):
    """Mean squared error between student and teacher features, whatever their architectures.

    Class and register tokens are dropped, both sides are averaged to the smaller grid, and a learned 1x1 projection
    brings the student to the teacher's width where they differ. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        normalization: ``"layer"`` standardises both sides over the channels at each position, so that the scale of the
            teacher's features does not set the weight; ``"l2"`` compares directions; ``"none"`` compares raw values, as
            FitNets does.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``normalization`` is unknown.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550; the alignment across architectures and the
        default normalisation are ours.

    Example:
        >>> FeatureKD("layer3", "blocks.11", weight=0.5).student_taps[0].path
        'layer3'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        normalization: Normalization = "layer",
        projection: Projection = "auto",
        weight: Weight = 1.0,
        name: str = "feature",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_choice("normalization", normalization, ("none", "layer", "l2"))
        self.normalization = normalization
        self.projection = projection
        self.adapters = nn.ModuleList()

    @classmethod
    def matched(
        cls,
        *,
        top: int = 3,
        samples: int = 1024,
        monotone: bool = True,
        normalization: Normalization = "layer",
        weight: Weight = 1.0,
        name: str = "feature",
    ) -> "FeatureKD":
        """Distil between the layers that are most similar when training starts; no layer is named.

        Args:
            top: How many pairs.
            samples: How many training samples the similarity is estimated from.
            monotone: Whether pairs keep the order of depth.
            normalization: As in the constructor.
            weight: Factor of the term.
            name: Name of the term.

        Returns:
            The objective; its pairs are known after `Distiller.build`.

        Example:
            >>> FeatureKD.matched(top=2).matching
            Matching(top=2, samples=1024, monotone=True)
        """
        return cls((), (), normalization=normalization, weight=weight, name=name).match(
            Matching(top, samples, monotone)
        )

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.adapters = nn.ModuleList(
            Align(student.geometry(s), teacher.geometry(t), projection=self.projection) for s, t in pairs
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = [
            feature_mse(*align(s, t), normalization=self.normalization)
            for align, (s, t) in zip(self.adapters, self.features(student, teacher), strict=True)
        ]
        return torch.stack(terms).mean()

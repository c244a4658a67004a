"""Distillation by hints: a regressor predicts the teacher's map from the student's."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters import Probe
from lightning_kd.adapters.regressors import HintRegressor, is_rectified
from lightning_kd.losses import feature_mse
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class FitNetKD(MapObjective):
    """Mean squared error between the teacher's map and what a regressor predicts from the student's (FitNets).

    The regressor is the published one where the grids allow it, see `HintRegressor`. It ends in BatchNorm and ReLU, so
    the teacher's place must be after a ReLU. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        rectify: Whether regressors end in the ReLU; ``None`` decides by the teacher's feature: yes if the example has
            no negative value there, as published, and no otherwise, as with transformers and SiLU or GELU (ours).
        weight: Factor of the term; 100 is published for CIFAR-100, with one pair at the second of three stages.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, in the form of the CIFAR-100 baselines.
        Transformers' tokens as maps are ours.

    Example:
        >>> FitNetKD("layer2", "layer2").weight
        100.0
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        rectify: bool | None = None,
        weight: Weight = 100.0,
        name: str = "fitnet",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.rectify = rectify
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        targets = [teacher.observation.features[tap] for tap in self.teacher_taps]
        self.adapters = nn.ModuleList(
            HintRegressor(s, t, rectify=is_rectified(target) if self.rectify is None else self.rectify)
            for (s, t), target in zip(self.geometries, targets, strict=True)
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = zip(self.adapters, self.maps(student, teacher), strict=True)
        return torch.stack([feature_mse(*regressor(s, t)) for regressor, (s, t) in pairs]).mean()

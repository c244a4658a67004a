"""Distillation that maximises a bound on the information that both networks share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe, as_map
from lightning_kd.adapters.regressors import information_regressor
from lightning_kd.layout import common_grid
from lightning_kd.losses import variational_information
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation

EPSILON = 1e-5


class VIDKD(MapObjective):
    """Variational information distillation: a Gaussian around the student's prediction explains the teacher's map.

    The mean is predicted by three 1x1 convolutions, the variance is learnt per channel as ``softplus(scale) + 1e-5``.
    Both features are averaged to the smaller grid first. Over several pairs the term is their sum. It becomes negative
    when predictions are good.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        variance: Every channel's variance at the start, above 1e-5, in squared units of the teacher's feature.
        weight: Factor of the term; 1 is published for CIFAR-100, with a pair at each of three stages.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``variance`` is not a finite number above 1e-5.

    Source:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835. In the usual code
        of the CIFAR-100 baselines the scales lie in a plain list and never learn; here they do, as in the paper.
        Transformers' tokens as maps are ours.

    Example:
        >>> VIDKD("layer3", "layer3").variance
        5.0
    """

    def __init__(
        self, student: Places, teacher: Places, *, variance: float = 5.0, weight: Weight = 1.0, name: str = "vid"
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_positive("variance", variance)
        if variance <= EPSILON:
            raise ValueError(f"`variance` must be above {EPSILON}, got {variance!r}.")
        self.variance = variance
        self.adapters = nn.ModuleList()
        self.scales = nn.ParameterList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        variance = self.variance - EPSILON
        scale = variance + math.log(-math.expm1(-variance))
        self.adapters = nn.ModuleList(information_regressor(s.width, t.width) for s, t in self.geometries)
        self.scales = nn.ParameterList(torch.full((t.width,), scale) for _, t in self.geometries)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        for regressor, scale, pair in zip(self.adapters, self.scales, self.maps(student, teacher), strict=True):
            s, t = map(as_map, common_grid(*pair))
            terms.append(variational_information(regressor(s), t, F.softplus(scale.float()) + EPSILON))
        return torch.stack(terms).sum()

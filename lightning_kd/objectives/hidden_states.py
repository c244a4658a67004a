"""Distillation of the directions of hidden states, token by token: DistilBERT's cosine."""

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd.adapters import Projection
from lightning_kd.losses import cosine_distance
from lightning_kd.objectives._projected import ProjectedObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation
from lightning_kd.tokens import common_tokens


class HiddenCosineKD(ProjectedObjective):
    """One minus the cosine between hidden states, averaged over all tokens.

    Where both networks have the same tokens, all are compared, class and register tokens included; else the patches on
    the common grid. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student, such as its final normalisation.
        teacher: As many places in the teacher.
        projection: ``"none"``, as published, needs equal widths; ``"auto"`` and ``"always"`` project the student
            by a learned linear layer, if the widths differ or always.
        weight: Factor of the term; DistilBERT adds it with weight 1 to 5 times the divergence of the predictions at
            temperature 2 and 2 times the task loss.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ShapeError: At setup, if the widths differ and ``projection="none"``.
        ValueError: If ``projection`` is unknown.

    Source:
        Sanh et al., "DistilBERT, a distilled version of BERT", arXiv:1910.01108; the common grid and the projection are
        ours.

    Example:
        >>> HiddenCosineKD("norm", "norm").teacher_taps[0].path
        'norm'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        projection: Projection = "none",
        weight: Weight = 1.0,
        name: str = "hidden_cosine",
    ) -> None:
        super().__init__(student, teacher, projection=projection, name=name, weight=weight)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        parts = zip(self.adapters, self.geometries, self.features(student, teacher), strict=True)
        for adapter, (s_geometry, t_geometry), features in parts:
            s, t = common_tokens(*features, s_geometry.layout, t_geometry.layout)
            terms.append(cosine_distance(adapter(s), t, channel_axis=-1))
        return torch.stack(terms).mean()

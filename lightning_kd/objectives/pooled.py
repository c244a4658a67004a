"""Distillation of one vector per utterance: the direction of the teacher's mean hidden state."""

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd.adapters import Geometry, Projection
from lightning_kd.layout import pooled
from lightning_kd.losses import cosine_distance
from lightning_kd.losses.frames import mean_of_frames
from lightning_kd.objectives._projected import ProjectedObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class PooledCosineKD(ProjectedObjective):
    """One minus the cosine between the pooled features of student and teacher.

    Frames are averaged over those that are audio and not padding, as far as the call says which (an attention mask, or
    lengths declared on the tap); maps over all positions; what is pooled already, such as the input of a classifier, is
    taken as it is. A learned linear layer brings the student to the teacher's width. Over several pairs the term is
    their mean.

    Args:
        student: Place or places in the student, such as ``"embedding"`` of a `BCResNet`.
        teacher: As many places in the teacher, such as its last layer.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.
        mask_padding: Whether padded frames are left out.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ShapeError: At setup, if the widths differ and ``projection="none"``.
        ValueError: If ``projection`` is unknown.

    Source:
        Ours: the cosine of "DistilBERT", arXiv:1910.01108, on pooled features, for a spotter's own front end and frame
        rate.

    Example:
        >>> PooledCosineKD("embedding", "hubert.encoder.layers.11").student_taps[0].path
        'embedding'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        projection: Projection = "auto",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "pooled_cosine",
    ) -> None:
        super().__init__(student, teacher, projection=projection, name=name, weight=weight)
        self.mask_padding = mask_padding

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        for adapter, (s_tap, t_tap), (s_geometry, t_geometry) in zip(self.adapters, taps, self.geometries, strict=True):
            s, t = self._pooled(student, s_tap, s_geometry), self._pooled(teacher, t_tap, t_geometry)
            terms.append(cosine_distance(adapter(s), t))
        return torch.stack(terms).mean()

    def _pooled(self, observation: Observation, tap: Tap, geometry: Geometry) -> Tensor:
        feature = observation.features[tap]
        if geometry.layout.axes != "NTD" or not self.mask_padding:
            return pooled(geometry.layout.channels_first(feature))
        return mean_of_frames(feature, observation.frame_mask(feature.shape[1], tap))

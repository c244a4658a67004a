"""Distillation between the frames of any two speech models."""

from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Probe, Projection, projection_of
from lightning_kd.adapters.frames import Resampling
from lightning_kd.losses import frame_cosine, frame_l1, frame_mse
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction
from lightning_kd.objectives._frames import aligned_frames, frames_at
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation

FrameDistance = Literal["mse", "l1", "cosine"]
_LOSSES = {"mse": frame_mse, "l1": frame_l1, "cosine": frame_cosine}


class FrameKD(PairedObjective):
    """Distance between frames ``(N, T, D)`` of student and teacher, over those that are not padding.

    The call's ``attention_mask`` says which frames those are, or what ``Tap(..., lengths=...)`` names. Sequences of
    different rates are brought to the student's, see `align_frames`; the student is projected to the teacher's width by
    a learned linear layer where the widths differ. Over several pairs the term is their mean.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        distance: ``"mse"``, ``"l1"``, or ``"cosine"`` for the negative logarithm of its sigmoid.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.
        reduction: Mean over ``"frame"``, or ``"utterance"``: each counts the same.
        mask_padding: Whether padded frames are left out; the official codes of speech distillation keep them.
        resampling: How a teacher of another rate is brought to the student's, ``"linear"`` or ``"pool"``.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ShapeError: At setup, if the widths differ and ``projection="none"``.
        ValueError: If an option is unknown.

    Example:
        >>> FrameKD("encoder.layers.1", "encoder.layers.5", distance="l1").teacher_taps[0].path
        'encoder.layers.5'
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        distance: FrameDistance = "mse",
        projection: Projection = "auto",
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        resampling: Resampling = "linear",
        weight: Weight = 1.0,
        name: str = "frames",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_choice("distance", distance, tuple(_LOSSES))
        check_choice("projection", projection, ("auto", "always", "none"))
        check_choice("resampling", resampling, ("linear", "pool"))
        check_frame_reduction(reduction)
        self.distance: FrameDistance = distance
        self.projection: Projection = projection
        self.reduction: FrameReduction = reduction
        self.mask_padding = mask_padding
        self.resampling: Resampling = resampling
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        self.adapters = nn.ModuleList(
            projection_of(
                frames_at(student.observation, s).shape[2],
                frames_at(teacher.observation, t).shape[2],
                projection=self.projection,
            )
            for s, t in zip(self.student_taps, self.teacher_taps, strict=True)
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        terms = []
        for adapter, s, t in zip(self.adapters, self.student_taps, self.teacher_taps, strict=True):
            prediction = adapter(frames_at(student, s))
            frames = aligned_frames(
                prediction, (student, s), (teacher, t), mask_padding=self.mask_padding, method=self.resampling
            )
            terms.append(_LOSSES[self.distance](*frames, reduction=self.reduction))
        return torch.stack(terms).mean()

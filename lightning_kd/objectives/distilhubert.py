"""Several layers of a speech encoder predicted from the last one of a shallow student."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative
from lightning_kd.adapters import Probe
from lightning_kd.adapters.frames import SplitHeads
from lightning_kd.losses import frame_regression
from lightning_kd.losses.frames import FrameReduction
from lightning_kd.objectives._frames import FrameObjective, aligned_frames, frames_at
from lightning_kd.schedules import Weight
from lightning_kd.speech.encoders import speech_encoder
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class DistilHuBERTKD(FrameObjective):
    r"""Heads on the student's output predict hidden states of the teacher; they are thrown away afterwards.

    .. math::
        L = \operatorname*{mean}_{n, t, i} \left( \frac{1}{D} \lVert p^i_{nt} - h^i_{nt} \rVert_1
        - \lambda \log \sigma(\cos(p^i_{nt}, h^i_{nt})) \right)

    over layers :math:`i` and frames that are not padding. The publication sums over the layers: with three its loss is
    three times this one, as is the official code's to the publication's.

    Args:
        layers: Hidden states of the teacher to predict: 0 is what enters its first layer, ``i`` what leaves the i-th.
        cosine_weight: :math:`\lambda \ge 0`.
        reduction: Mean over ``"frame"``, or ``"utterance"``: each counts the same.
        mask_padding: Whether padded frames are left out; the official code keeps them.
        student: Where the student is read; ``None`` takes the output of its encoder.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if there is not exactly one speech encoder in a network, the teacher has no such layer, or
            its LayerDrop is left on.
        ValueError: If ``layers`` is empty, ``cosine_weight`` negative or ``reduction`` unknown.

    Source:
        Chang et al., "DistilHuBERT: Speech Representation Learning by Layer-wise Distillation of Hidden-unit BERT",
        arXiv:2110.01900; the mean over layers is that of s3prl's code.

    Example:
        >>> DistilHuBERTKD((4, 12)).layers
        (4, 12)
    """

    def __init__(
        self,
        layers: Sequence[int] = (4, 8, 12),
        *,
        cosine_weight: float = 1.0,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        student: str | Tap | None = None,
        weight: Weight = 1.0,
        name: str = "distilhubert",
    ) -> None:
        super().__init__(reduction=reduction, mask_padding=mask_padding, name=name, weight=weight)
        check_not_negative("cosine_weight", cosine_weight)
        if not layers:
            raise ValueError("`layers` must name at least one hidden state of the teacher, got none.")
        self.layers = tuple(layers)
        self.cosine_weight = cosine_weight
        self.student_place = student
        self.heads: nn.Module = nn.Identity()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        encoder = speech_encoder(teacher, "teacher")
        encoder.check_layerdrop()
        place = self.student_place
        self.student_taps = (speech_encoder(student, "student").last() if place is None else Tap.of(place),)
        self.teacher_taps = tuple(encoder.layer(layer) for layer in self.layers)

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        widths = (
            frames_at(probe.observation, taps[0]).shape[2]
            for probe, taps in ((student, self.student_taps), (teacher, self.teacher_taps))
        )
        self.heads = SplitHeads(*widths, targets=len(self.layers))

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        (place,) = self.student_taps
        predictions = self.heads(frames_at(student, place)).unbind(dim=2)
        terms = [
            frame_regression(
                *aligned_frames(prediction, (student, place), (teacher, tap), mask_padding=self.mask_padding),
                cosine_weight=self.cosine_weight,
                reduction=self.reduction,
            )
            for prediction, tap in zip(predictions, self.teacher_taps, strict=True)
        ]
        return torch.stack(terms).mean()

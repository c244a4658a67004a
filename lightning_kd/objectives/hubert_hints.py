"""Layer-to-layer distillation of speech encoders: FitHuBERT's hints, and ARMHuBERT's over masked input."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import SetupError
from lightning_kd.losses import frame_mse, masked_span_mse
from lightning_kd.losses.frames import FrameReduction
from lightning_kd.objectives._frames import HintsObjective, aligned_frames, frames_at
from lightning_kd.schedules import Weight
from lightning_kd.speech.encoders import SpeechEncoder, speech_encoder
from lightning_kd.taps import Observation, Tap

SPANS = "mask_time_indices"


class FitHuBERTKD(HintsObjective):
    r"""Every layer of a thin student predicts the teacher's layer of the same depth.

    .. math::
        L = \mathrm{mse}(p_L, h_L) + w \sum_{l < L} \mathrm{mse}(p_l, h_l)

    Each layer has its head, which brings the student's frames back to the teacher's rate where its time is reduced (a
    transposed convolution), and to its width. Frames that a head cannot make are left out: the last one of an odd
    number.

    Args:
        layers: Hidden states to compare, counted from 1 in both networks; ``None`` for all, of equally deep networks.
        hint_weight: :math:`w \ge 0`.
        random_layers: Number of layers below the last that count in an epoch, drawn anew for each; ``None`` for all.
        reduction: Mean over ``"frame"``, or ``"utterance"``: each counts the same.
        mask_padding: Whether padded frames are left out; the official code keeps them.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if there is not exactly one speech encoder in a network, the layers do not fit, or
            LayerDrop is left on in one of them.
        ValueError: If an option is out of range.

    Source:
        Lee et al., "FitHuBERT: Going Thinner and Deeper for Knowledge Distillation of Speech Self-Supervised Learning",
        arXiv:2207.00555.

    Example:
        >>> FitHuBERTKD(layers=(6, 12)).hint_weight
        0.1
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        *,
        hint_weight: float = 0.1,
        random_layers: int | None = None,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "fithubert",
    ) -> None:
        super().__init__(
            layers,
            hint_weight=hint_weight,
            random_layers=random_layers,
            reduction=reduction,
            mask_padding=mask_padding,
            name=name,
            weight=weight,
        )

    @override
    def compare(self, index: int, student: Observation, teacher: Observation) -> Tensor:
        s, t = self.student_taps[index], self.teacher_taps[index]
        prediction = self.heads[index](frames_at(student, s))
        frames = aligned_frames(prediction, (student, s), (teacher, t), mask_padding=self.mask_padding)
        return frame_mse(*frames, reduction=self.reduction)


class ARMHuBERTKD(HintsObjective):
    r"""Masking distillation: hidden frames learn from a teacher that hears everything, the others from one like them.

    .. math::
        L = d_L + w \sum_{l < L} d_l, \qquad
        d_l = \operatorname*{mean}_{n,t} \frac{1}{D} \begin{cases}
        \lVert p_l - h_l^{\mathrm{clean}} \rVert^2 & t \text{ hidden} \\
        \lVert p_l - h_l^{\mathrm{masked}} \rVert^2 & \text{else} \end{cases}

    Call the student with ``mask_time_indices=spans``, by keyword, see `lightning_kd.speech.SpanMask`; the teacher is
    `lightning_kd.teachers.MaskedAndClean`, which hears the same spans and the whole.

    Args:
        layers: Hidden states to compare, counted from 1 in both networks; ``None`` for all, of equally deep networks.
        hint_weight: :math:`w \ge 0`.
        reduction: Mean over ``"frame"``, or ``"utterance"``: each counts the same.
        mask_padding: Whether padded frames are left out; the official code keeps them.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if there is not exactly one speech encoder in a network, the layers do not fit, LayerDrop
            is left on in one of them, or one ignores the spans; in training, if the student is called without them.
        ValueError: If an option is out of range.

    Source:
        Jang et al., "Recycle-and-Distill: Universal Compression Strategy for Transformer-based Speech SSL Models"
        (ARMHuBERT), arXiv:2305.11685.

    Example:
        >>> ARMHuBERTKD().name
        'armhubert'
    """

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        *,
        hint_weight: float = 0.1,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        name: str = "armhubert",
    ) -> None:
        super().__init__(
            layers,
            hint_weight=hint_weight,
            random_layers=None,
            reduction=reduction,
            mask_padding=mask_padding,
            name=name,
            weight=weight,
        )

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        for name, network in (("student", student), ("teacher", teacher)):
            encoder = speech_encoder(network, name).module
            if not getattr(encoder.config, "apply_spec_augment", False) or not hasattr(encoder, "masked_spec_embed"):
                raise SetupError(
                    f"the {name} ignores {SPANS}: set config.apply_spec_augment = True, and make it with "
                    "config.mask_time_prob above 0, so that it has an embedding of what is hidden."
                )
        super().locate(student, teacher)

    @override
    def places(
        self, student: SpeechEncoder, teacher: SpeechEncoder, layers: Sequence[int]
    ) -> tuple[tuple[Tap, ...], tuple[Tap, ...]]:
        masked, clean = (tuple(teacher.layer(layer, call=call) for layer in layers) for call in (0, 1))
        return tuple(student.layer(layer) for layer in layers), masked + clean

    @override
    def compare(self, index: int, student: Observation, teacher: Observation) -> Tensor:
        spans = student.inputs.argument(SPANS, student.model)
        if spans is None:
            raise SetupError(
                f"`{self.name}` needs to know what was hidden, and the student was called without {SPANS}: "
                f"net(audio, {SPANS}=spans), with spans of lightning_kd.speech.SpanMask."
            )
        s = self.student_taps[index]
        masked, clean = self.teacher_taps[index], self.teacher_taps[index + len(self.heads)]
        prediction = self.heads[index](frames_at(student, s))
        predicted, target, mask = aligned_frames(
            prediction, (student, s), (teacher, masked), mask_padding=self.mask_padding
        )
        frames = predicted.shape[1]
        whole = frames_at(teacher, clean)[:, :frames]
        return masked_span_mse(predicted, whole, target, spans[:, :frames].bool(), mask, reduction=self.reduction)

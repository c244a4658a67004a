"""Distillation between networks trained with CTC, frame by frame."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.losses import frame_kl, guided_ctc, select_frames
from lightning_kd.losses.frame_selection import FrameSelection
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction
from lightning_kd.objectives._ctc import CTCObjective
from lightning_kd.objectives._logits import Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class CTCKD(CTCObjective):
    """KL divergence between the class distributions of two CTC networks, on frames chosen by the teacher.

    Nine tenths of a CTC network's frames say blank. Averaged over all of them the term teaches little else; on frames
    around the teacher's labels alone (the default) it needs no CTC loss beside it, and so no transcripts.

    Both networks must have one label set, and spikes at similar times. Where their frame rates differ, probabilities of
    the teacher are averaged, or left out, to the student's rate.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        selection: Which frames, of `lightning_kd.losses.frame_selection`: ``AllFrames``, ``EliminateBlanks``,
            ``KeepAround``, ``WidenAround``, ``TrimBlanks``, ``ThresholdBlanks`` or ``RandomBlanks``; ``None`` is
            ``KeepAround(1, 1)``, published as symmetric selection.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``, which it is in transformers.
        log_prior: Subtracted from the teacher's log-posteriors before frames are chosen, one number per class.
        lengths: Where the lengths of utterances are among the student's arguments, as for `Tap`; ``None`` reads the
            ``attention_mask``.
        reduction: ``"frame"`` or ``"utterance"``, see `frame_kl`.
        mask_padding: Whether frames behind the end of an utterance are left out.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.

    Raises:
        SetupError: If the blank is not known, or not the same for both networks.
        ShapeError: If the networks have different label sets.
        ValueError: If an option is out of range.

    Source:
        Hilmes, Rossenbach and Schlueter, "Analyzing the Importance of Blank for CTC-Based Knowledge Distillation",
        Interspeech 2025. The mean of probabilities between different frame rates is ours.

    Example:
        >>> CTCKD(blank=0)
        CTCKD(temperature=2.0, selection=None, blank=0, weight=1.0)
    """

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        selection: FrameSelection | None = None,
        blank: int | None = None,
        log_prior: Sequence[float] | None = None,
        lengths: Any = None,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "ctc",
    ) -> None:
        super().__init__(
            blank=blank,
            lengths=lengths,
            mask_padding=mask_padding,
            student_output=student_output,
            teacher_output=teacher_output,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        check_frame_reduction(reduction)
        self.temperature = temperature
        self.selection = selection
        self.log_prior = None if log_prior is None else torch.tensor(log_prior)
        self.reduction: FrameReduction = reduction

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        own, other, mask = self.frames(student, teacher, step)
        selection = None if self.selection is None else self.selection.at(step.progress)
        chosen = select_frames(other, mask, blank=self.blank_index, selection=selection, log_prior=self.log_prior)
        return frame_kl(own, other, chosen, temperature=self.temperature, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, selection={self.selection}, {super().extra_repr()}"


class GuidedCTCKD(CTCObjective):
    """Makes the student say the teacher's labels at the teacher's times, beside a CTC loss.

    Args:
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: As for `CTCKD`.
        reduction: ``"frame"`` or ``"utterance"``.
        mask_padding: Whether frames behind the end of an utterance are left out.
        weight: Factor of the term, about that of the CTC loss.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.

    Raises:
        SetupError: If the blank is not known, or not the same for both networks.
        ShapeError: If the networks have different label sets.
        ValueError: If an option is out of range.

    Source:
        Kurata and Audhkhasi, "Guiding CTC Posterior Spike Timings for Improved Posterior Fusion and Knowledge
        Distillation", Interspeech 2019; its weight from memory.
    """

    def __init__(
        self,
        *,
        blank: int | None = None,
        lengths: Any = None,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "guided_ctc",
    ) -> None:
        super().__init__(
            blank=blank,
            lengths=lengths,
            mask_padding=mask_padding,
            student_output=student_output,
            teacher_output=teacher_output,
            name=name,
            weight=weight,
        )
        check_frame_reduction(reduction)
        self.reduction: FrameReduction = reduction

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        own, other, mask = self.frames(student, teacher, step)
        return guided_ctc(own, other, mask, blank=self.blank_index, reduction=self.reduction)

"""Distillation between CTC networks by whole transcripts."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.decoding import Hypothesis, beam_search, frame_counts, greedy_search
from lightning_kd.losses import ctc_hypotheses
from lightning_kd.objectives._ctc import CTCObjective
from lightning_kd.objectives._logits import Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class CTCSequenceKD(CTCObjective):
    """CTC loss of the student on the transcripts that the teacher finds most probable.

    The networks' frame rates and the times of their spikes may differ as they like.

    Args:
        hypotheses: How many transcripts: 1 takes the best path of the teacher, more are found by prefix beam search,
            which runs on the processor.
        beams: Prefixes that the search keeps.
        per_label: Whether losses are divided by the length of their transcript, see `ctc_hypotheses`.
        relative: Whether only the order of an utterance's transcripts is taught, see `ctc_hypotheses`.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: As for `CTCKD`.
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
        Hilmes, Rossenbach and Schlueter, Interspeech 2025; one best transcript is usual.

    Example:
        >>> CTCSequenceKD(hypotheses=4, blank=0)
        CTCSequenceKD(hypotheses=4, beams=16, blank=0, weight=1.0)
    """

    def __init__(
        self,
        *,
        hypotheses: int = 1,
        beams: int = 16,
        per_label: bool = True,
        relative: bool = False,
        blank: int | None = None,
        lengths: Any = None,
        mask_padding: bool = True,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "ctc_sequence",
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
        check_positive("hypotheses", hypotheses)
        if beams < hypotheses:
            raise ValueError(f"`beams` must be at least hypotheses={hypotheses}, got {beams}.")
        if relative and hypotheses == 1:
            raise ValueError("`relative` must be False with one hypothesis, whose share is always 1, got True.")
        self.hypotheses = hypotheses
        self.beams = beams
        self.per_label = per_label
        self.relative = relative

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        own, other, _ = self.scores(student, teacher, step)
        found = self._search(other, self.mask_of(teacher, other.shape[1]))
        mask = self.mask_of(student, own.shape[1])
        return ctc_hypotheses(
            own, found, mask, blank=self.blank_index, per_label=self.per_label, relative=self.relative
        )

    def _search(self, logits: Tensor, mask: Tensor | None) -> list[list[Hypothesis]]:
        if self.hypotheses == 1:
            return [[best] for best in greedy_search(logits, mask, blank=self.blank_index)]
        counts = frame_counts(logits, mask)
        options = {"blank": self.blank_index, "beams": self.beams, "hypotheses": self.hypotheses}
        return [beam_search(scores[:count], **options) for scores, count in zip(logits.cpu(), counts, strict=True)]

    @override
    def extra_repr(self) -> str:
        return f"hypotheses={self.hypotheses}, beams={self.beams}, {super().extra_repr()}"

"""Self-distillation within a CTC network."""

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import ShapeError
from lightning_kd.losses import ctc_negative_log_likelihood, frame_kl
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction
from lightning_kd.objectives._ctc import CTCObjective, read_transcripts
from lightning_kd.objectives._logits import Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, pick_tensor


class IntermediateCTCKD(CTCObjective):
    """Self-distillation: an intermediate layer with a CTC head of its own learns from the network's output.

    The head is an adapter: it trains beside the network and is not in its checkpoints. The term is the divergence from
    the output, whose gradient is stopped, to the head, plus the head's own CTC loss.

    Args:
        layer: Place of an intermediate layer with one vector per frame of the output.
        temperature: Softmax temperature above 0, dimensionless.
        ctc_weight: Factor of the head's CTC loss inside the term, which reads transcripts from the batch's labels:
            class indices ``(N, U)`` padded with -100 or the blank. 0 needs no labels.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: As for `CTCKD`.
        reduction: ``"frame"`` or ``"utterance"``, of the divergence.
        mask_padding: Whether frames behind the end of an utterance are left out.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        name: Name of the term.

    Raises:
        SetupError: If the blank is not known.
        ShapeError: If the layer's frames are not those of the output.
        ValueError: If an option is out of range.

    Source:
        Kim et al., "Guiding Frame-Level CTC Alignments Using Self-knowledge Distillation", 2024, from memory.
    """

    needs_examples = True
    needs_teacher = False

    def __init__(
        self,
        layer: str | Tap,
        *,
        temperature: float = 1.0,
        ctc_weight: float = 1.0,
        blank: int | None = None,
        lengths: Any = None,
        reduction: FrameReduction = "frame",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        student_output: Output = None,
        name: str = "intermediate_ctc",
    ) -> None:
        super().__init__(
            blank=blank,
            lengths=lengths,
            mask_padding=mask_padding,
            student_output=student_output,
            teacher_output=None,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        check_not_negative("ctc_weight", ctc_weight)
        check_frame_reduction(reduction)
        self.student_taps = (Tap.of(layer),)
        self.temperature = temperature
        self.ctc_weight = ctc_weight
        self.reduction: FrameReduction = reduction
        self.head: nn.Module = nn.Identity()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        hidden = student.observation.features[self.student_taps[0]]
        logits = pick_tensor(student.observation.output, self.student_output, "the student's output")
        self._check_frames(hidden, logits)
        self.head = nn.Linear(hidden.shape[-1], logits.shape[-1])

    def _check_frames(self, hidden: Tensor, logits: Tensor) -> None:
        if hidden.ndim != 3 or hidden.shape[:2] != logits.shape[:2]:
            raise ShapeError(
                f"`layer` must give one vector per frame of the output, shape {(*logits.shape[:2], 'D')}, got "
                f"{tuple(hidden.shape)}."
            )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        logits = pick_tensor(student.output, self.student_output, "the student's output")
        hidden = student.features[self.student_taps[0]]
        self._check_frames(hidden, logits)
        guess = self.head(hidden)
        mask = self.mask_of(student, logits.shape[1])
        term = frame_kl(guess, logits, mask, temperature=self.temperature, reduction=self.reduction)
        if self.ctc_weight == 0:
            return term
        transcripts = read_transcripts(step.labels, blank=self.blank_index)
        own = ctc_negative_log_likelihood(guess, transcripts, mask, blank=self.blank_index)
        lengths = own.new_tensor([max(len(transcript), 1) for transcript in transcripts])
        return term + self.ctc_weight * (own / lengths).mean()

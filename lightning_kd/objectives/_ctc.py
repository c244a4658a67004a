"""What objectives between CTC networks share: which class is the blank, which frames are padding, equal frame rates."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.adapters.frames import align_frames
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.labels import blank_of
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap


class CTCFrames(NamedTuple):
    """Class scores of one call of both models, on the student's frames.

    Attributes:
        student: The student's logits, shape ``(N, T, V)``.
        teacher: The teacher's, same shape.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``; ``None`` if all do.
    """

    student: Tensor
    teacher: Tensor
    mask: Tensor | None


class CTCObjective(LogitObjective):
    """An objective on class scores per frame.

    Args:
        blank: Index of the blank; ``None`` asks the models' configuration.
        lengths: Where the lengths of the utterances are among the student's arguments, as for `Tap`; ``None`` reads the
            ``attention_mask``, if there is one.
        mask_padding: Whether frames behind the end of an utterance are left out.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.
        weight: Factor of the term.
    """

    def __init__(
        self,
        *,
        blank: int | None,
        lengths: Any,
        mask_padding: bool,
        student_output: Output,
        teacher_output: Output,
        name: str,
        weight: Weight,
    ) -> None:
        super().__init__(
            student_output=student_output, teacher_output=teacher_output, ignore_index=None, name=name, weight=weight
        )
        self.blank = blank
        self.mask_padding = mask_padding
        self._place = None if lengths is None else Tap("", lengths=lengths)

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        if self.blank is None:
            self.blank = blank_of(student, teacher)

    @property
    def blank_index(self) -> int:
        """Index of the blank.

        Raises:
            SetupError: If it is neither given nor looked up yet.
        """
        if self.blank is None:
            raise SetupError("`blank` must be given outside a Distiller, got None.")
        return self.blank

    def mask_of(self, call: Observation, frames: int) -> Tensor | None:
        """True where a frame of a call counts; ``None`` if all do."""
        return call.frame_mask(frames, self._place) if self.mask_padding else None

    def frames(self, student: Observation, teacher: Observation, step: Step) -> CTCFrames:
        """Read both logits, with the teacher's at the student's frame rate.

        Between networks of different rates the teacher's probabilities, not its scores, are averaged.
        """
        own, other, _ = self.scores(student, teacher, step)
        masks = self.mask_of(student, own.shape[1]), self.mask_of(teacher, other.shape[1])
        if own.shape[1] == other.shape[1]:
            return CTCFrames(own, other, masks[0])
        wide = torch.promote_types(other.dtype, torch.float32)
        probabilities = F.softmax(other.detach().to(wide), dim=-1)
        own, probabilities, mask = align_frames(own, probabilities, *masks, method="pool")
        return CTCFrames(own, probabilities.clamp(min=torch.finfo(wide).tiny).log(), mask)

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, {super().extra_repr()}"


def read_transcripts(labels: Tensor, *, blank: int) -> list[list[int]]:
    """Transcripts from padded labels.

    Args:
        labels: Class indices ``(N, U)``; negative ones and blanks are padding.
        blank: Index of the blank.

    Returns:
        Class indices of each utterance.

    Raises:
        ShapeError: If ``labels`` has not two axes.

    Example:
        >>> read_transcripts(torch.tensor([[3, 1, -100], [2, 0, 0]]), blank=0)
        [[3, 1], [2]]
    """
    if labels.ndim != 2 or labels.is_floating_point():
        raise ShapeError(
            f"`labels` must be class indices of shape (N, U), got {labels.dtype} of shape {tuple(labels.shape)}: pass "
            "labels=, an index or key of the batch or a function of it, to KnowledgeDistillation."
        )
    return [[label for label in row if label >= 0 and label != blank] for row in labels.tolist()]

"""Distillation between transducers (RNN-T)."""

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.decoding import frame_counts
from lightning_kd.errors import ShapeError
from lightning_kd.losses.transducer import LATTICE_REDUCTIONS, LatticeReduction, transducer_kl
from lightning_kd.objectives._ctc import read_transcripts
from lightning_kd.objectives._logits import Output
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, pick_tensor


class TransducerKD(Objective):
    """KL divergence on the lattices of two transducers, collapsed to the next label, the blank and all others.

    Both networks are called with the same transcripts and return scores of shape ``(N, T, U + 1, V)``. Transcripts are
    read from the batch's labels, class indices ``(N, U)`` padded with -100 or the blank.

    Args:
        blank: Index of the blank.
        lengths: Where the lengths of utterances are among the student's arguments, as for `Tap`; ``None`` reads the
            ``attention_mask``, if there is one.
        reduction: ``"node"``: mean over the nodes of the batch; ``"utterance"``: sum over each lattice, mean over
            utterances, for weights of the order 1e-2 to 1e-3; ``"sum"``.
        mask_padding: Whether frames behind the end of an utterance are left out. Behind its transcript there is nothing
            to compare in any case.
        weight: Factor of the term.
        student_output: Index or key of the lattice in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.

    Raises:
        ShapeError: If the networks have different label sets or frame rates, or labels do not fit the lattice.
        ValueError: If an option is out of range.

    Source:
        Panchapagesan et al., "Efficient Knowledge Distillation for RNN-Transducer Models", arXiv:2011.06110.
    """

    needs_examples = False

    def __init__(
        self,
        *,
        blank: int = 0,
        lengths: Any = None,
        reduction: LatticeReduction = "node",
        mask_padding: bool = True,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "transducer",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_choice("reduction", reduction, LATTICE_REDUCTIONS)
        self.blank = blank
        self.reduction: LatticeReduction = reduction
        self.mask_padding = mask_padding
        self.student_output = student_output
        self.teacher_output = teacher_output
        self._place = None if lengths is None else Tap("", lengths=lengths)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        own = pick_tensor(student.output, self.student_output, "the student's output")
        other = pick_tensor(teacher.output, self.teacher_output, "the teacher's output")
        if own.ndim != 4 or own.shape != other.shape:
            raise ShapeError(
                "student and teacher must return lattices (N, T, U + 1, V) of one size, over one label set, got "
                f"{tuple(own.shape)} and {tuple(other.shape)}."
            )
        mask = student.frame_mask(own.shape[1], self._place) if self.mask_padding else None
        frames = None if mask is None else own.new_tensor(frame_counts(own, mask), dtype=torch.long)
        targets, labels = self._targets(step.labels, own.shape[2] - 1, own.device)
        return transducer_kl(
            own, other, targets, blank=self.blank, frames=frames, labels=labels, reduction=self.reduction
        )

    def _targets(self, labels: Tensor, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        transcripts = read_transcripts(labels, blank=self.blank)
        longest = max(map(len, transcripts))
        if longest > width:
            raise ShapeError(
                f"`labels` hold up to {longest} classes and the lattice has room for {width}: call the student with "
                "the transcripts of the same batch."
            )
        padded = [[*row, *[self.blank] * (width - len(row))] for row in transcripts]
        return torch.tensor(padded, device=device), torch.tensor([len(row) for row in transcripts], device=device)

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, reduction={self.reduction!r}, weight={self.weight}"

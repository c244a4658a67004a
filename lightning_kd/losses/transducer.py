"""Loss between two transducers, on a lattice collapsed to three classes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError
from lightning_kd.losses._scores import divergence, score_operands
from lightning_kd.losses.frames import reduce_frames

LatticeReduction = Literal["node", "utterance", "sum"]
LATTICE_REDUCTIONS = ("node", "utterance", "sum")
_CERTAIN = -1e-6


def transducer_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    blank: int,
    frames: Tensor | None = None,
    labels: Tensor | None = None,
    reduction: LatticeReduction = "node",
) -> Tensor:
    r"""KL divergence at each node of the transducer's lattice between three classes: next label, blank, all others.

    .. math::
        L = \sum_{t, u} \sum_{k \in \{y_{u+1}, \varnothing, \text{rest}\}} P_T(k | t, u)
        \log \frac{P_T(k | t, u)}{P_S(k | t, u)}

    over the nodes :math:`t < T_n, u \le U_n`. Where the transcript has ended there is no next label, and two classes
    are compared. It is at most the divergence over the whole vocabulary, at a memory of three numbers per node.

    Args:
        student_logits: Unnormalised scores, shape ``(N, T, U + 1, V)``, floating point.
        teacher_logits: Unnormalised scores, same shape.
        targets: Transcripts without blanks, class indices ``(N, U)``; what follows a transcript is not read.
        blank: Index of the blank.
        frames: Frames of each utterance, ``(N,)``; ``None`` for all ``T``.
        labels: Labels of each transcript, ``(N,)``; ``None`` for all ``U``.
        reduction: ``"node"``: mean over the nodes of the batch; ``"utterance"``: sum over each lattice, mean over
            utterances, which needs a weight of the order 1e-2 to 1e-3; ``"sum"`` over everything.

    Returns:
        Loss in nats, not negative, shape ``()``.

    Raises:
        ShapeError: If shapes do not fit together.
        ValueError: If ``reduction`` is unknown, or ``blank`` no class.

    Source:
        Panchapagesan et al., "Efficient Knowledge Distillation for RNN-Transducer Models", arXiv:2011.06110; its
        weight from memory.

    Example:
        >>> teacher = torch.tensor([0.6, 0.15, 0.05, 0.2]).log().expand(1, 1, 2, 4)
        >>> student = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().expand(1, 1, 2, 4)
        >>> transducer_kl(student, teacher, torch.tensor([[0]]), blank=3)  # 0.1094 before the label, 0.0444 behind it
        tensor(0.0769)
    """
    check_choice("reduction", reduction, LATTICE_REDUCTIONS)
    _check_lattice(student_logits, targets, blank)
    nodes, has_label = _nodes(student_logits, frames, labels)
    student, teacher = score_operands(student_logits, teacher_logits, nodes)
    next_label = F.pad(targets.clamp(0, student.shape[-1] - 1), (0, 1))[:, None, :, None]
    student_log, teacher_log = (_collapsed(scores, next_label, has_label, blank) for scores in (student, teacher))
    values = divergence(teacher_log, student_log).masked_fill(~nodes, 0.0).flatten(1)
    if reduction == "node":
        return reduce_frames(values, nodes.flatten(1))
    return values.sum() if reduction == "sum" else values.sum(dim=1).mean()


def _check_lattice(logits: Tensor, targets: Tensor, blank: int) -> None:
    if logits.ndim != 4 or targets.shape != (logits.shape[0], logits.shape[2] - 1):
        raise ShapeError(
            "`student_logits` must have shape (N, T, U + 1, V) for `targets` of shape (N, U), got "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}."
        )
    if not 0 <= blank < logits.shape[-1]:
        raise ValueError(f"`blank` must be one of the {logits.shape[-1]} classes, from 0 on, got {blank}.")


def _nodes(logits: Tensor, frames: Tensor | None, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Nodes that count, ``(N, T, U + 1)``, and of them those with a next label."""
    utterances, times, positions, _ = logits.shape
    for name, value in (("frames", frames), ("labels", labels)):
        if value is not None and value.shape != (utterances,):
            raise ShapeError(f"`{name}` must have shape ({utterances},), got {tuple(value.shape)}.")
    frames = logits.new_full((utterances,), times) if frames is None else frames.to(logits.device)
    labels = logits.new_full((utterances,), positions - 1) if labels is None else labels.to(logits.device)
    time = torch.arange(times, device=logits.device)
    position = torch.arange(positions, device=logits.device)
    in_time = (time < frames[:, None])[:, :, None]
    return (
        in_time & (position <= labels[:, None])[:, None],
        in_time & (position < labels[:, None])[:, None],
    )


def _collapsed(logits: Tensor, next_label: Tensor, has_label: Tensor, blank: int) -> Tensor:
    """Log-probabilities of next label, blank and rest, ``(N, T, U + 1, 3)``."""
    scores = F.log_softmax(logits, dim=-1)
    label = scores.gather(-1, next_label.expand(*scores.shape[:-1], 1))[..., 0].masked_fill(~has_label, -torch.inf)
    empty = scores[..., blank]
    either = torch.logaddexp(label, empty).clamp(max=_CERTAIN)
    return torch.stack([label, empty, torch.log(-torch.expm1(either))], dim=-1)


class TransducerKL(nn.Module):
    """Module form of `transducer_kl`.

    Args:
        blank: Index of the blank.
        reduction: ``"node"``, ``"utterance"`` or ``"sum"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, blank: int, reduction: LatticeReduction = "node") -> None:
        super().__init__()
        check_choice("reduction", reduction, LATTICE_REDUCTIONS)
        self.blank = blank
        self.reduction: LatticeReduction = reduction

    @override
    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        frames: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        return transducer_kl(
            student_logits,
            teacher_logits,
            targets,
            blank=self.blank,
            frames=frames,
            labels=labels,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, reduction={self.reduction!r}"

"""Which frames of a CTC teacher are distilled: most of them say blank, and drown the others."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative, check_positive
from lightning_kd.decoding import check_blank
from lightning_kd.errors import ShapeError
from lightning_kd.schedules import START, Progress


class FrameSelection(ABC):
    """A rule that chooses frames by where the teacher says something other than blank (its spikes)."""

    def at(self, progress: Progress) -> "FrameSelection":  # noqa: ARG002 - for rules that change while training
        """The rule at this moment of training."""
        return self

    @abstractmethod
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        """Choose frames.

        Args:
            spikes: True where the teacher's best class is not the blank, boolean ``(N, T)``, False where padded.
            blank_probability: The teacher's probability of the blank, ``(N, T)``.
            mask: True where a frame belongs to the utterance, boolean ``(N, T)``.

        Returns:
            True where a frame is distilled, boolean ``(N, T)``.
        """


# Not slotted: jsonargparse reads a default that is a dataclass by vars().
@dataclass(frozen=True)
class AllFrames(FrameSelection):
    """Every frame of the utterance."""

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        return mask


@dataclass(frozen=True)
class EliminateBlanks(FrameSelection):
    """Spikes only. A student that learns from nothing else forgets to say blank: keep its own CTC loss."""

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        return spikes


@dataclass(frozen=True)
class KeepAround(FrameSelection):
    """Spikes, and frames close to one.

    The symmetric form with one or two frames on each side needs neither labels nor a CTC loss beside it.

    Attributes:
        before: Frames kept before each spike.
        after: Frames kept behind it.

    Raises:
        ValueError: If a number is negative.

    Example:
        >>> spikes = torch.tensor([[False, True, False, False]])
        >>> KeepAround(1, 0).select(spikes, torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))
        tensor([[ True,  True, False, False]])
    """

    before: int = 1
    after: int = 1

    def __post_init__(self) -> None:
        """Check the values."""
        check_not_negative("before", self.before)
        check_not_negative("after", self.after)

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        # Frame t is kept if there is a spike from t - after to t + before; beyond the ends there is none.
        padded = F.pad(spikes.float(), (self.after, self.before))
        return F.max_pool1d(padded[:, None], self.before + self.after + 1, stride=1)[:, 0].bool() & mask


@dataclass(frozen=True)
class WidenAround(FrameSelection):
    """`KeepAround` with as many frames on both sides as ``every_epochs`` have passed.

    Attributes:
        every_epochs: Epochs after which one more frame is kept on each side.

    Raises:
        ValueError: If ``every_epochs`` is not above 0.
    """

    every_epochs: int = 1

    def __post_init__(self) -> None:
        """Check the value."""
        check_positive("every_epochs", self.every_epochs)

    @override
    def at(self, progress: Progress) -> FrameSelection:
        context = progress.epoch // self.every_epochs
        return KeepAround(context, context)

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        return self.at(START).select(spikes, blank_probability, mask)


@dataclass(frozen=True)
class TrimBlanks(FrameSelection):
    """Everything from the first to the last spike."""

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        counts = spikes.long()
        begun = counts.cumsum(dim=1) > 0
        not_over = counts.flip(1).cumsum(dim=1).flip(1) > 0
        return begun & not_over


@dataclass(frozen=True)
class ThresholdBlanks(FrameSelection):
    """Spikes, and blanks that the teacher is not sure of.

    Attributes:
        other: Least probability of all other classes together, from 0 to 1.

    Raises:
        ValueError: If ``other`` is out of range.
    """

    other: float = 0.05

    def __post_init__(self) -> None:
        """Check the value."""
        check_fraction("other", self.other)

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        return (spikes | (1.0 - blank_probability >= self.other)) & mask


@dataclass(frozen=True)
class RandomBlanks(FrameSelection):
    """Spikes, and blanks drawn at random in proportion to their number.

    Attributes:
        ratio: Blanks per spike, rounded in each utterance.

    Raises:
        ValueError: If ``ratio`` is negative.
    """

    ratio: float = 1.0

    def __post_init__(self) -> None:
        """Check the value."""
        check_not_negative("ratio", self.ratio)

    @override
    def select(self, spikes: Tensor, blank_probability: Tensor, mask: Tensor) -> Tensor:
        blanks = mask & ~spikes
        lots = torch.rand(spikes.shape, device=spikes.device).masked_fill(~blanks, -1.0)
        rank = lots.argsort(dim=1, descending=True).argsort(dim=1)
        wanted = (self.ratio * spikes.sum(dim=1, keepdim=True)).round()
        return spikes | (blanks & (rank < wanted))


def spiking_frames(
    teacher_logits: Tensor, mask: Tensor | None = None, *, blank: int, log_prior: Tensor | None = None
) -> Tensor:
    """Frames where the teacher's best class is not the blank.

    Args:
        teacher_logits: Unnormalised scores, shape ``(N, T, V)``.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``; ``None`` counts all.
        blank: Index of the blank.
        log_prior: What is subtracted from the teacher's log-posteriors before, shape ``(V,)``, in nats: logarithms of
            how frequent classes are, times a scale.

    Returns:
        Boolean mask ``(N, T)``.

    Raises:
        ShapeError: If the logits have not three axes or no class ``blank``, or ``log_prior`` has another length.

    Example:
        >>> spiking_frames(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), blank=1)
        tensor([[False,  True]])
    """
    check_blank(teacher_logits, blank)
    scores = teacher_logits.detach()
    if log_prior is not None:
        if log_prior.shape != scores.shape[-1:]:
            raise ShapeError(
                f"`log_prior` must have one value per class, ({scores.shape[-1]},), got {tuple(log_prior.shape)}."
            )
        scores = scores - log_prior.to(scores)
    spikes = scores.argmax(dim=-1) != blank
    return spikes if mask is None else spikes & mask


def select_frames(
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    blank: int,
    selection: FrameSelection | None = None,
    log_prior: Tensor | None = None,
) -> Tensor:
    """Frames that are distilled from a CTC teacher.

    Args:
        teacher_logits: Unnormalised scores, shape ``(N, T, V)``.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``; ``None`` counts all.
        blank: Index of the blank.
        selection: The rule; ``None`` is `KeepAround` with one frame on each side.
        log_prior: See `spiking_frames`.

    Returns:
        Boolean mask ``(N, T)``; an utterance without spikes may have no frame.

    Raises:
        ShapeError: As `spiking_frames`.

    Source:
        Hilmes, Rossenbach and Schlueter, "Analyzing the Importance of Blank for CTC-Based Knowledge Distillation",
        Interspeech 2025. Its shift of the selection wraps around the ends of an utterance; this one does not.

    Example:
        >>> logits = torch.tensor([[[0.0, 9.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])
        >>> select_frames(logits, blank=1)
        tensor([[ True,  True,  True, False]])
    """
    spikes = spiking_frames(teacher_logits, mask, blank=blank, log_prior=log_prior)
    valid = torch.ones_like(spikes) if mask is None else mask
    blank_probability = F.softmax(teacher_logits.detach().float(), dim=-1)[..., blank]
    rule = KeepAround() if selection is None else selection
    return rule.select(spikes, blank_probability, valid)

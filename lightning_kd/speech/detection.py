"""What a keyword spotter costs its user: false accepts per hour of background, and keywords that it misses."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative, check_positive
from lightning_kd.errors import ShapeError

SECONDS_PER_HOUR = 3600.0
_NEVER = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordRates:
    """Errors of a spotter at one threshold.

    Attributes:
        threshold: Probability from which a keyword is accepted.
        false_accepts_per_hour: Accepted keywords per hour of background, 1/h.
        false_reject_rate: Share of the keywords that were not accepted as what they are, from 0 to 1.
    """

    threshold: float
    false_accepts_per_hour: float
    false_reject_rate: float


class FalseAcceptsPerHour(Metric):
    """False accepts per hour of background, over any number of batches and ranks.

    A window is accepted if its most likely class is a keyword with at least the threshold's probability. Windows whose
    label is a background class (silence, other words) are the background; each lasts ``window_seconds``.

    Args:
        background: Indices of the classes that are no keyword.
        threshold: Probability from which a keyword is accepted, from 0 to 1.
        window_seconds: How much new audio a window brings, s: its length, or the hop of overlapping ones.

    The value is in 1/h, of shape ``()``, and 0 before any background was heard.

    Raises:
        ValueError: If ``background`` is empty or a number is out of range.

    Example:
        >>> metric = FalseAcceptsPerHour([0])
        >>> logits = torch.tensor([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]])
        >>> metric(logits, torch.tensor([0, 0, 1]))  # one of two seconds
        tensor(1800.)
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    accepted: Tensor
    heard: Tensor

    def __init__(self, background: Collection[int], *, threshold: float = 0.5, window_seconds: float = 1.0) -> None:
        super().__init__()
        _check_background(background)
        check_fraction("threshold", threshold)
        check_positive("window_seconds", window_seconds)
        self.background = tuple(background)
        self.threshold = threshold
        self.window_seconds = window_seconds
        self.add_state("accepted", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("heard", torch.tensor(0), dist_reduce_fx="sum")

    @override
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: Unnormalised scores, shape ``(N, C)``.
            labels: Class indices, shape ``(N,)``.

        Raises:
            ShapeError: If the shapes do not fit.
        """
        heard = _heard(logits, labels, self.background)
        self.accepted += ((heard.confidence >= self.threshold) & heard.is_background).sum()
        self.heard += heard.is_background.sum()

    @override
    def compute(self) -> Tensor:
        """False accepts per hour so far."""
        per_hour = SECONDS_PER_HOUR / self.window_seconds
        return self.accepted * per_hour / self.heard.clamp(min=1)


def keyword_rates(
    logits: Tensor,
    labels: Tensor,
    *,
    background: Collection[int],
    threshold: float = 0.5,
    window_seconds: float = 1.0,
) -> KeywordRates:
    """False accepts per hour and false rejects at one threshold; `FalseAcceptsPerHour` says what is accepted.

    Args:
        logits: Unnormalised scores, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        background: Indices of the classes that are no keyword.
        threshold: Probability from which a keyword is accepted, from 0 to 1.
        window_seconds: How much new audio a window brings, s.

    Returns:
        The rates.

    Raises:
        ShapeError: If the shapes do not fit.
        ValueError: If ``labels`` has no background or no keyword, ``background`` is empty, or a number is out of range.

    Example:
        >>> logits = torch.tensor([[0.0, 9.0], [9.0, 0.0], [0.0, 9.0]])
        >>> keyword_rates(logits, torch.tensor([0, 0, 1]), background=[0])
        KeywordRates(threshold=0.5, false_accepts_per_hour=1800.0, false_reject_rate=0.0)
    """
    _check_background(background)
    check_fraction("threshold", threshold)
    check_positive("window_seconds", window_seconds)
    heard = _heard(logits, labels, tuple(background))
    if bool(heard.is_background.all()) or not bool(heard.is_background.any()):
        raise ValueError(f"`labels` must hold background {tuple(background)} and keywords, got one kind only.")
    accepted = heard.confidence >= threshold
    hours = int(heard.is_background.sum()) * window_seconds / SECONDS_PER_HOUR
    right = accepted & (heard.decided == labels)
    return KeywordRates(
        threshold=threshold,
        false_accepts_per_hour=int((accepted & heard.is_background).sum()) / hours,
        false_reject_rate=1.0 - float(right[~heard.is_background].double().mean()),
    )


def threshold_for(
    logits: Tensor,
    labels: Tensor,
    *,
    background: Collection[int],
    most_per_hour: float,
    window_seconds: float = 1.0,
) -> float:
    """The lowest threshold with at most so many false accepts per hour.

    Choose it on validation audio, and report `keyword_rates` with it on other audio.

    Args:
        logits: Unnormalised scores, shape ``(N, C)``.
        labels: Class indices, shape ``(N,)``.
        background: Indices of the classes that are no keyword.
        most_per_hour: Largest number of false accepts per hour, 1/h.
        window_seconds: How much new audio a window brings, s.

    Returns:
        A probability, just above that of the first false accept too many; 0 if none is too many, 1 if even a
        probability of 1 is accepted too often.

    Raises:
        ShapeError: If the shapes do not fit.
        ValueError: If ``labels`` has no background, ``background`` is empty, or a number is out of range.

    Example:
        >>> logits = torch.tensor([[0.0, 2.0], [9.0, 0.0]])
        >>> round(threshold_for(logits, torch.tensor([0, 0]), background=[0], most_per_hour=0), 4)
        0.8808
    """
    _check_background(background)
    check_not_negative("most_per_hour", most_per_hour)
    check_positive("window_seconds", window_seconds)
    heard = _heard(logits, labels, tuple(background))
    confidences = heard.confidence[heard.is_background].sort(descending=True).values
    if not len(confidences):
        raise ValueError(f"`labels` must hold background {tuple(background)}, got none.")
    allowed = int(most_per_hour * len(confidences) * window_seconds / SECONDS_PER_HOUR)
    if allowed >= int((confidences >= 0).sum()):
        return 0.0
    return min(math.nextafter(float(confidences[allowed]), math.inf), 1.0)


@dataclass(frozen=True, slots=True)
class _Heard:
    """The most likely class of each window, its probability (below 0 if it is background), and what the window is."""

    decided: Tensor
    confidence: Tensor
    is_background: Tensor


def _heard(logits: Tensor, labels: Tensor, background: tuple[int, ...]) -> _Heard:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(
            f"`logits` and `labels` must have shapes (N, C) and (N,), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    classes = torch.tensor(background, device=logits.device)
    probability, decided = logits.detach().double().softmax(-1).max(-1)
    confidence = probability.masked_fill(torch.isin(decided, classes), _NEVER)
    return _Heard(decided, confidence, torch.isin(labels, classes))


def _check_background(background: Collection[int]) -> None:
    if not background:
        raise ValueError("`background` must name at least one class that is no keyword, got none.")

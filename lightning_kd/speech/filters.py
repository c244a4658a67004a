"""Which pseudo-labels a student learns from: by word error rate, by label-free scores, by signs of invention."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lightning_kd._checks import check_choice, check_fraction, check_positive
from lightning_kd.errors import TranscriptError
from lightning_kd.speech.pseudo_labels import PseudoLabel
from lightning_kd.speech.scores import proxy_error
from lightning_kd.speech.text import Normalizer, compression_ratio, is_shouted, repeated_share, word_errors

Rule = Callable[[PseudoLabel], str | None]
Better = Literal["low", "high"]


@dataclass(frozen=True, slots=True)
class Filtered:
    """What filters left.

    Attributes:
        kept: Pseudo-labels that no rule rejected.
        dropped: How many were rejected, by reason.
    """

    kept: list[PseudoLabel]
    dropped: dict[str, int] = field(default_factory=dict)


def apply_filters(labels: Iterable[PseudoLabel], rules: Sequence[Rule]) -> Filtered:
    """Leave out the pseudo-labels that a rule rejects.

    Args:
        labels: The pseudo-labels.
        rules: Functions that return the reason to reject one, or ``None``; the first reason counts.

    Returns:
        What is left, and how many were dropped for which reason.

    Example:
        >>> made_up = PseudoLabel(id="a", audio="a.wav", seconds=1.0, text="NO NO", tokens=(1, 2))
        >>> apply_filters([made_up], [no_shouting])
        Filtered(kept=[], dropped={'upper case': 1})
    """
    kept: list[PseudoLabel] = []
    dropped: Counter[str] = Counter()
    for label in labels:
        reason = next((found for rule in rules if (found := rule(label)) is not None), None)
        if reason is None:
            kept.append(label)
        else:
            dropped[reason] += 1
    return Filtered(kept, dict(dropped))


def no_shouting(label: PseudoLabel) -> str | None:
    """Reject transcripts in upper case."""
    return "upper case" if is_shouted(label.text) else None


def no_silence(label: PseudoLabel) -> str | None:
    """Reject empty transcripts."""
    return None if label.text.strip() else "empty"


@dataclass(frozen=True, slots=True)
class MaxWordErrorRate:
    """Keeps what the teacher transcribed almost as the reference says: Distil-Whisper's filter.

    Attributes:
        percent: A word error rate of this many per cent and more is rejected: 10 for English; 20 and more where the
            teacher itself is no better; 80 in uDistil-Whisper's comparison.
        normalizer: Applied to both texts, see `whisper_normalizer`; ``None`` leaves them as they are.

    Raises:
        TranscriptError: On use, if a pseudo-label has no reference.
        ValueError: If ``percent`` is not above 0.

    Source:
        Gandhi, von Platen and Rush, "Distil-Whisper", arXiv:2311.00430.

    Example:
        >>> texts = {"text": "the cat sat down", "reference": "the cat sat"}
        >>> label = PseudoLabel(id="a", audio="a.wav", seconds=1.0, tokens=(), **texts)
        >>> MaxWordErrorRate(20)(label), MaxWordErrorRate(40)(label)
        ('word error rate', None)
    """

    percent: float = 10.0
    normalizer: Normalizer | None = None

    def __post_init__(self) -> None:
        """Check the value."""
        check_positive("percent", self.percent)

    def __call__(self, label: PseudoLabel) -> str | None:
        """The reason to reject ``label``, or ``None``."""
        if label.reference is None:
            raise TranscriptError(
                f"`reference` of pseudo-label {label.id!r} must be its transcript, got None: write manifests with "
                '"text", or use a filter that needs none.'
            )
        normalize = self.normalizer or str
        reference, text = normalize(label.reference), normalize(label.text)
        if not reference.strip():
            return "empty reference"
        if not text.strip():
            return "empty"
        return "word error rate" if word_errors([reference], [text]).percent >= self.percent else None


@dataclass(frozen=True, slots=True)
class NotMadeUp:
    """Rejects transcripts that repeat themselves or hold more than can be said in the time.

    Attributes:
        max_compression: Largest `compression_ratio`; 2.4 is Whisper's own limit.
        max_tokens_per_second: Most tokens per second of audio.
        max_repeated: Largest share of runs of five words that occur twice.

    Raises:
        ValueError: If a limit is not above 0.
    """

    max_compression: float = 2.4
    max_tokens_per_second: float = 12.0
    max_repeated: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("max_compression", "max_tokens_per_second", "max_repeated"):
            check_positive(name, getattr(self, name))

    def __call__(self, label: PseudoLabel) -> str | None:
        """The reason to reject ``label``, or ``None``."""
        if compression_ratio(label.text) > self.max_compression:
            return "compression ratio"
        if len(label.tokens) > self.max_tokens_per_second * label.seconds:
            return "tokens per second"
        return "repeated words" if repeated_share(label.text) > self.max_repeated else None


@dataclass(frozen=True, slots=True)
class ScoreLimit:
    """Keeps the pseudo-labels whose score is on the good side of a limit.

    Attributes:
        score: Function of a pseudo-label, such as `entropy` or `proxy`, or one of your own.
        limit: The worst score that is kept.
        better: ``"low"`` or ``"high"``: which scores are good.
        reason: What rejected ones are counted as.

    Raises:
        ValueError: If ``better`` is unknown.

    Example:
        >>> label = PseudoLabel(id="a", audio="", seconds=1.0, text="so", tokens=(7,), scores={"entropy": 2.0})
        >>> ScoreLimit(entropy, 1.5)(label)
        'score'
    """

    score: Callable[[PseudoLabel], float]
    limit: float
    better: Better = "low"
    reason: str = "score"

    def __post_init__(self) -> None:
        """Check the value."""
        check_choice("better", self.better, ("low", "high"))

    def __call__(self, label: PseudoLabel) -> str | None:
        """The reason to reject ``label``, or ``None``."""
        value = self.score(label)
        kept = value <= self.limit if self.better == "low" else value >= self.limit
        return None if kept else self.reason

    @classmethod
    def keeping(
        cls,
        fraction: float,
        pool: Iterable[PseudoLabel],
        score: Callable[[PseudoLabel], float],
        *,
        better: Better = "low",
        reason: str = "score",
    ) -> "ScoreLimit":
        """The limit that keeps the best part of a pool.

        Args:
            fraction: Part that is kept, from 0 to 1; at least one pseudo-label is, and all equal to the last one kept.
            pool: The pseudo-labels to choose from.
            score: Function of a pseudo-label.
            better: Which scores are good.
            reason: What rejected ones are counted as.

        Returns:
            The limit.

        Raises:
            TranscriptError: If the pool is empty or a score is not a number.
            ValueError: If ``fraction`` is out of range.
        """
        check_fraction("fraction", fraction)
        scores = sorted((score(label) for label in pool), reverse=better == "high")
        if not scores or any(math.isnan(value) for value in scores):
            raise TranscriptError(f"`pool` must hold pseudo-labels with scores that are numbers, got {scores[:3]}.")
        kept = max(1, math.floor(fraction * len(scores) + 1e-9))
        return cls(score, scores[kept - 1], better, reason)


def confidence(label: PseudoLabel) -> float:
    """Mean largest probability of the teacher, from 0 to 1; high is good."""
    return _score(label, "confidence")


def entropy(label: PseudoLabel) -> float:
    """Mean entropy of the teacher's distributions, nats; low is good."""
    return _score(label, "entropy")


def nll(label: PseudoLabel) -> float:
    """Mean negative log-likelihood per token under the model that wrote the score, nats; low is good.

    The filter of this name uses a model that did not write the transcript: `score_with` puts its score in.
    """
    return _score(label, "nll")


def _score(label: PseudoLabel, name: str) -> float:
    if name not in label.scores:
        raise TranscriptError(
            f"pseudo-label {label.id!r} has no score {name!r}, got {sorted(label.scores)}: write it with "
            "`lightning-kd pseudo-label`, or add one with `score_with`."
        )
    return label.scores[name]


def proxy(others: Iterable[PseudoLabel], *, normalizer: Normalizer | None = None) -> Callable[[PseudoLabel], float]:
    """Score: word error rate against the transcripts of a second recogniser; low is good, 0.8 a usual limit.

    Args:
        others: Pseudo-labels of the same audio by the second recogniser, with the same ids.
        normalizer: Applied to both texts.

    Returns:
        A function for `ScoreLimit`. It raises `TranscriptError` for a pseudo-label that the second one has not heard.

    Source:
        Waheed et al., "uDistil-Whisper: Label-Free Data Filtering for Knowledge Distillation in Low-Data Regimes",
        NAACL 2025.
    """
    texts = {label.id: label.text for label in others}

    def score(label: PseudoLabel) -> float:
        if label.id not in texts:
            raise TranscriptError(f"`others` must hold every pseudo-label, got none with the id {label.id!r}.")
        return proxy_error(label.text, texts[label.id], normalizer=normalizer)

    return score


def score_with(
    labels: Iterable[PseudoLabel],
    name: str,
    score: Callable[[np.ndarray[Any, Any], str], float],
    *,
    audio: Callable[[PseudoLabel], np.ndarray[Any, Any]],
) -> list[PseudoLabel]:
    """Add a score of your own, a function of audio and transcript, such as similarity in SONAR's space or PESQ.

    Args:
        labels: The pseudo-labels.
        name: What the score is called.
        score: Function of samples and text.
        audio: Reads the samples of a pseudo-label.

    Returns:
        The pseudo-labels with the score.

    Raises:
        TranscriptError: If a score is not a finite number.

    Example:
        >>> label = PseudoLabel(id="a", audio="", seconds=1.0, text="so", tokens=())
        >>> score_with([label], "letters", lambda samples, text: len(text), audio=lambda label: np.zeros(1))[0].scores
        {'letters': 2.0}
    """
    scored = []
    for label in labels:
        value = float(score(audio(label), label.text))
        if not math.isfinite(value):
            raise TranscriptError(f"`score` must return a finite number, got {value} for pseudo-label {label.id!r}.")
        scored.append(label.with_score(name, value))
    return scored

"""How far a teacher's transcript can be trusted, without knowing the right one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd.errors import ShapeError, TranscriptError
from lightning_kd.speech.text import Normalizer, word_errors


@dataclass(frozen=True, slots=True)
class TokenScores:
    """How sure a model is of a transcript, over its tokens.

    Attributes:
        nll: Mean negative log-likelihood of the tokens, nats; low is good.
        confidence: Mean of the largest probability at each token, from 0 to 1; high is good. Of a greedy transcript it
            is the mean probability of its tokens.
        likelihood: Geometric mean of the tokens' probabilities, from 0 to 1.
        entropy: Mean entropy of the distribution at each token, nats; low is good.
    """

    nll: float
    confidence: float
    likelihood: float
    entropy: float


def token_scores(logits: Tensor, tokens: Tensor) -> TokenScores:
    """Scores of a transcript from the model's distribution at each of its tokens.

    Of the model that wrote it they are confidence and entropy; of another one, ``nll`` is the label-free filter of that
    name.

    Args:
        logits: Unnormalised scores at each token, shape ``(L, V)``, floating point.
        tokens: The tokens, class indices ``(L,)``.

    Returns:
        The scores.

    Raises:
        ShapeError: If shapes do not fit together.
        TranscriptError: If there is no token.

    Example:
        >>> scores = token_scores(torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log(), torch.tensor([0, 0]))
        >>> round(scores.confidence, 4), round(scores.nll, 4)
        (0.7, 0.3993)
    """
    if logits.ndim != 2 or tokens.shape != logits.shape[:1]:
        raise ShapeError(
            f"`logits` must have shape (L, V) and `tokens` (L,), got {tuple(logits.shape)} and {tuple(tokens.shape)}."
        )
    if not len(tokens):
        raise TranscriptError("`tokens` must hold at least one token, got an empty transcript.")
    log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    p = log_p.exp()
    nll = -log_p.gather(-1, tokens[:, None].to(log_p.device)).mean()
    entropy = -torch.where(p > 0, p * log_p, 0.0).sum(dim=-1).mean()
    return TokenScores(float(nll), float(p.amax(dim=-1).mean()), float((-nll).exp()), float(entropy))


def proxy_error(text: str, other: str, *, normalizer: Normalizer | None = None) -> float:
    """Word error rate of a transcript against that of a second recogniser, which stands in for a reference.

    Args:
        text: The teacher's transcript.
        other: The second recogniser's.
        normalizer: Applied to both; ``None`` leaves them as they are.

    Returns:
        The rate; 0 if both are empty, infinite if only the second one is.

    Raises:
        MissingExtraError: If jiwer is not installed.

    Source:
        Waheed et al., "uDistil-Whisper: Label-Free Data Filtering for Knowledge Distillation in Low-Data Regimes",
        NAACL 2025: the best of its filters.

    Example:
        >>> proxy_error("the cat sat down", "the cat sat")
        0.3333333333333333
    """
    own, reference = (text, other) if normalizer is None else (normalizer(text), normalizer(other))
    if not reference.strip():
        return float("inf") if own.strip() else 0.0
    return word_errors([reference], [own]).rate


def embedding_similarity(first: Sequence[float] | Tensor, second: Sequence[float] | Tensor) -> float:
    """Cosine of the angle between two embeddings, such as those of audio and transcript in one space (SONAR).

    Args:
        first: One embedding, shape ``(D,)``.
        second: The other.

    Returns:
        From -1 to 1.

    Raises:
        ShapeError: If shapes differ.

    Example:
        >>> round(embedding_similarity([1.0, 2.0, 2.0], [2.0, 1.0, 2.0]), 6)
        0.888889
    """
    a, b = (torch.as_tensor(values, dtype=torch.float64) for values in (first, second))
    if a.shape != b.shape or a.ndim != 1:
        raise ShapeError(f"embeddings must have one shape (D,), got {tuple(a.shape)} and {tuple(b.shape)}.")
    return float(F.cosine_similarity(a, b, dim=0))

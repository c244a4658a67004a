"""How well a student drafts for its teacher: speculative decoding, without running it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_fraction, check_positive, check_same_shape


@dataclass(frozen=True, slots=True)
class DraftQuality:
    """What a student is worth as the draft of its teacher.

    Attributes:
        acceptance: Mean probability that a drafted token is accepted when both sample, from 0 to 1.
        agreement: Share of positions where both find the same token best, from 0 to 1: the acceptance of greedy
            decoding.
        tokens: How many positions were looked at.
    """

    acceptance: float
    agreement: float
    tokens: int

    def tokens_per_pass(self, drafted: int, *, greedy: bool = False) -> float:
        """Expected tokens from one pass of the teacher, see `expected_tokens`.

        Args:
            drafted: Tokens that the student drafts each time.
            greedy: Whether decoding is greedy.
        """
        return expected_tokens(self.agreement if greedy else self.acceptance, drafted)

    def __add__(self, other: "DraftQuality") -> "DraftQuality":
        """Both together, weighted by their numbers of positions."""
        total = self.tokens + other.tokens
        share = self.tokens / total if total else 0.0
        return DraftQuality(
            share * self.acceptance + (1 - share) * other.acceptance,
            share * self.agreement + (1 - share) * other.agreement,
            total,
        )


def acceptance_rates(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Probability that the teacher accepts what the student drafts, at each position.

    .. math::
        \alpha = \sum_x \min(p(x), q(x))

    Speculative sampling accepts a token :math:`x` drawn from the draft :math:`q` with probability
    :math:`\min(1, p(x) / q(x))` and so has the teacher's distribution :math:`p`, exactly.

    Args:
        student_logits: Unnormalised scores of the draft, shape ``(..., V)``, floating point.
        teacher_logits: Unnormalised scores, same shape.

    Returns:
        From 0 to 1, shape ``(...)``.

    Raises:
        ShapeError: If shapes differ: drafts need the teacher's vocabulary.

    Source:
        Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", arXiv:2211.17192.

    Example:
        >>> p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
        >>> acceptance_rates(q.log(), p.log())
        tensor(0.7000)
    """
    check_same_shape(student_logits, teacher_logits, "Logits")
    q, p = (
        F.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
        for logits in (student_logits, teacher_logits)
    )
    return torch.minimum(p, q).sum(dim=-1)


def residual(student_probabilities: Tensor, teacher_probabilities: Tensor) -> Tensor:
    """Distribution of the token that follows a rejected draft: what the teacher says more often than the draft.

    Args:
        student_probabilities: Of the draft, shape ``(..., V)``.
        teacher_probabilities: Same shape.

    Returns:
        Probabilities ``(..., V)``; the teacher's own where both are equal and nothing can be rejected.

    Raises:
        ShapeError: If shapes differ.

    Example:
        >>> residual(torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.5, 0.3, 0.2]))
        tensor([1., 0., 0.])
    """
    check_same_shape(student_probabilities, teacher_probabilities, "Probabilities")
    more = (teacher_probabilities - student_probabilities).clamp(min=0.0)
    total = more.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, more / total.clamp(min=torch.finfo(more.dtype).tiny), teacher_probabilities)


def expected_tokens(acceptance: float, drafted: int) -> float:
    r"""Tokens that one pass of the teacher yields on average, if acceptances are independent.

    .. math::
        \frac{1 - \alpha^{\gamma + 1}}{1 - \alpha}

    Args:
        acceptance: :math:`\alpha`, from 0 to 1.
        drafted: :math:`\gamma`, tokens drafted before each pass, above 0.

    Returns:
        From 1 to ``drafted + 1``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> round(expected_tokens(0.7, 4), 4)
        2.7731
    """
    check_fraction("acceptance", acceptance)
    check_positive("drafted", drafted)
    return float(sum(acceptance**count for count in range(drafted + 1)))


def draft_quality(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> DraftQuality:
    """How well a student drafts, on transcripts that both were given.

    Args:
        student_logits: Unnormalised scores, shape ``(N, L, V)``.
        teacher_logits: Unnormalised scores, same shape.
        mask: True where a token counts, boolean ``(N, L)``; ``None`` counts all.

    Returns:
        The figures; of no token at all, zeros.

    Raises:
        ShapeError: If shapes differ.

    Example:
        >>> logits = torch.zeros(1, 2, 2)
        >>> draft_quality(logits, logits)
        DraftQuality(acceptance=1.0, agreement=1.0, tokens=2)
    """
    rates = acceptance_rates(student_logits, teacher_logits)
    same = (student_logits.argmax(dim=-1) == teacher_logits.argmax(dim=-1)).to(rates)
    if mask is not None:
        rates, same = rates[mask], same[mask]
    if rates.numel() == 0:
        return DraftQuality(0.0, 0.0, 0)
    return DraftQuality(float(rates.mean()), float(same.mean()), rates.numel())

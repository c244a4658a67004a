"""Losses between attention scores: what each token looks at, head by head."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, reduce, without_autocast
from lightning_kd.losses.feature import feature_mse
from lightning_kd.losses.logit import soft_target_kl

MASKED_SCORE = -100.0


def token_relations(left: Tensor, right: Tensor, *, heads: int) -> Tensor:
    r"""Scaled dot products between tokens, head by head: attention scores, and relations of the same form.

    .. math::
        R_{h,ij} = \frac{\langle a_i^{(h)}, b_j^{(h)} \rangle}{\sqrt{D / H}}

    Args:
        left: Vectors :math:`a`, shape ``(N, L, D)``, floating point: queries.
        right: Vectors :math:`b`, shape ``(N, M, D)``: keys.
        heads: :math:`H`, number of equal slices of the width; it must divide :math:`D`.

    Returns:
        Scores before the softmax, at least float32, shape ``(N, H, L, M)``.

    Raises:
        ShapeError: If the tensors have not three axes, differ in width, or ``heads`` does not divide the width.

    Example:
        >>> import torch
        >>> eye = torch.eye(4)[None]
        >>> token_relations(eye, eye, heads=1)[0, 0].diagonal()  # 1 / sqrt(4)
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    if left.ndim != 3 or right.ndim != 3 or left.shape[-1] != right.shape[-1]:
        raise ShapeError(
            "token vectors must have shape (samples, tokens, width) with one width, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}."
        )
    check_heads("heads", heads, left.shape[-1])
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    with without_autocast(left):
        a, b = (x.to(dtype).reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (left, right))
        return a @ b.mT / math.sqrt(a.shape[-1])


def attention_score_mse(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean squared error between attention scores before the softmax.

    .. math::
        L = \frac{1}{N H L^2} \sum_{n,h,i,j} (\tilde s_{nhij} - \tilde t_{nhij})^2, \qquad
        \tilde x = \begin{cases} x & x > -100 \\ 0 & \text{otherwise} \end{cases}

    Scores of -100 and below are what an additive mask leaves of padding; they count as 0 on both sides. No gradient
    flows to ``teacher_scores``.

    Args:
        student_scores: Shape ``(N, H, L, L)``, queries before keys, floating point.
        teacher_scores: Same shape as ``student_scores``.
        mask: Boolean, shape ``(N, L)``, true for real tokens. Pairs with a padded token are then left out of the sum
            and of the count, whatever their scores; without any real token the loss is 0.
        reduction: ``"mean"`` over all (real) pairs of all heads and samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in squared units of the scores, non-negative, at least float32: shape ``()``, or ``(N, H, L, L)`` for
        ``"none"``.

    Raises:
        ShapeError: If the scores differ in shape, are empty or have not four axes, or ``mask`` does not fit.
        TypeError: If the scores are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", arXiv:1909.10351; ``mask`` is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import attention_score_mse
        >>> student = torch.tensor([[[[1.0, -10000.0], [1.0, -10000.0]]]])
        >>> attention_score_mse(student, torch.zeros(1, 1, 2, 2))  # 1, 0, 1, 0
        tensor(0.5000)
    """
    check_reduction(reduction)
    _check_scores(student_scores, teacher_scores, mask)
    student, teacher = (x.masked_fill(x <= MASKED_SCORE, 0.0) for x in (student_scores, teacher_scores))
    if mask is None:
        return feature_mse(student, teacher, reduction=reduction)
    padded = ~(mask[:, None, :, None] & mask[:, None, None, :])
    errors = feature_mse(student.masked_fill(padded, 0.0), teacher.masked_fill(padded, 0.0), reduction="none")
    if reduction != "mean":
        return reduce(errors, reduction)
    return errors.sum() / (~padded).expand_as(errors).sum().clamp(min=1)


def attention_kl(
    student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""KL divergence from the teacher's to the student's attention, averaged over heads and queries.

    .. math::
        L = \frac{1}{N} \sum_n \frac{1}{H |x_n|} \sum_{h} \sum_{i \in x_n}
            \mathrm{KL}\bigl(\mathrm{softmax}(t_{nhi}) \,\|\, \mathrm{softmax}(s_{nhi})\bigr)

    with the softmax over the keys, and :math:`x_n` the real tokens of sample :math:`n`. No gradient flows to
    ``teacher_scores``.

    Args:
        student_scores: Scores before the softmax, shape ``(N, H, L, L)``, queries before keys, floating point.
        teacher_scores: Same shape as ``student_scores``.
        mask: Boolean, shape ``(N, L)``, true for real tokens: padded keys get no attention and padded queries are left
            out, whatever their scores. A sample without any real token contributes 0.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the scores differ in shape, are empty or have not four axes, or ``mask`` does not fit.
        TypeError: If the scores are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
        Transformers", arXiv:2002.10957.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import attention_kl
        >>> teacher = torch.tensor([3.0, 1.0]).log().expand(1, 1, 2, 2)  # attention 3/4 and 1/4
        >>> attention_kl(torch.zeros(1, 1, 2, 2), teacher)
        tensor(0.1308)
    """
    check_reduction(reduction)
    _check_scores(student_scores, teacher_scores, mask)
    if mask is None:
        rows = soft_target_kl(student_scores, teacher_scores, temperature=1.0, reduction="none")
        return reduce(rows.mean(dim=(1, 2)), reduction)
    student, teacher = (_attending_to_real_tokens(scores, mask) for scores in (student_scores, teacher_scores))
    rows = soft_target_kl(student, teacher, temperature=1.0, reduction="none")
    return reduce(rows.mean(dim=1).sum(dim=1) / mask.sum(dim=1).clamp(min=1), reduction)


class AttentionScoreMSE(nn.Module):
    """Module form of `attention_score_mse`.

    Args:
        reduction: ``"mean"`` over all (real) pairs of all heads and samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return attention_score_mse(student_scores, teacher_scores, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class AttentionKL(nn.Module):
    """Module form of `attention_kl`.

    Args:
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return attention_kl(student_scores, teacher_scores, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def check_heads(name: str, heads: int, width: int) -> None:
    """Raise `ShapeError` unless ``heads`` is above 0 and divides ``width``."""
    if heads < 1 or width % heads:
        raise ShapeError(f"`{name}` must divide the width {width}, got {heads!r}.")


def _check_scores(student: Tensor, teacher: Tensor, mask: Tensor | None) -> None:
    check_same_shape(student, teacher, "Attention scores")
    if student.ndim != 4 or student.shape[-1] != student.shape[-2]:
        raise ShapeError(
            f"attention scores must have shape (samples, heads, tokens, tokens), got {tuple(student.shape)}."
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be a boolean tensor, true for real tokens, got {mask.dtype}.")
    if mask.shape != (student.shape[0], student.shape[-1]):
        raise ShapeError(
            f"`mask` must have one entry per token, shape {(student.shape[0], student.shape[-1])}, "
            f"got {tuple(mask.shape)}."
        )


def _attending_to_real_tokens(scores: Tensor, mask: Tensor) -> Tensor:
    """Padded keys at minus infinity; rows of padded queries at one constant, where both sides agree."""
    keys, queries = mask[:, None, None, :], mask[:, None, :, None]
    return scores.masked_fill(~keys, -torch.inf).masked_fill(~queries, 0.0)

"""Symmetric divergences between class distributions."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import divergence, log_probabilities, score_operands


def symmetric_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean of the KL divergences in both directions, half of Jeffreys' divergence.

    .. math::
        L = \tfrac12 \bigl(\mathrm{KL}(p^t \| p^s) + \mathrm{KL}(p^s \| p^t)\bigr), \qquad p = \mathrm{softmax}(z)

    No gradient flows to ``teacher_logits``. A class masked with ``-inf`` on both sides contributes nothing.

    Args:
        student_logits: Unnormalised scores, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores, same shape as ``student_logits``.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative and unbounded, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Cui et al., "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
        Backbones" (SSLD), arXiv:2103.05959. Its documentation speaks of a JS divergence, its code computes this one,
        with 1e-12 added to the probabilities inside the logarithms; log-softmax does without. For the divergence of
        that name see `jensen_shannon`.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import symmetric_kl
        >>> teacher_logits = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3/4 and 1/4
        >>> symmetric_kl(torch.zeros(1, 2), teacher_logits)  # half of 1/4 log 3
        tensor(0.1373)
    """
    check_reduction(reduction)
    student, teacher = (log_probabilities(z) for z in score_operands(student_logits, teacher_logits, mask))
    return reduce((divergence(teacher, student) + divergence(student, teacher)) / 2, reduction, mask)


def jensen_shannon(
    student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Jensen-Shannon divergence: mean KL divergence of both class distributions to their mixture.

    .. math::
        L = \tfrac12 \mathrm{KL}(p^t \| m) + \tfrac12 \mathrm{KL}(p^s \| m), \qquad m = \tfrac12 (p^t + p^s)

    Symmetric and bounded by :math:`\log 2`, so that one wrong and certain teacher cannot dominate a batch. No gradient
    flows to ``teacher_logits``. A class masked with ``-inf`` on both sides contributes nothing.

    Args:
        student_logits: Unnormalised scores, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores, same shape as ``student_logits``.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, in [0, log 2] per position, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37(1), 1991.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import jensen_shannon
        >>> certain = torch.tensor([[40.0, 0.0]])
        >>> jensen_shannon(certain, -certain)  # nothing in common: log 2
        tensor(0.6931)
    """
    check_reduction(reduction)
    student, teacher = (log_probabilities(z) for z in score_operands(student_logits, teacher_logits, mask))
    mixture = torch.logaddexp(student, teacher) - math.log(2)
    return reduce((divergence(teacher, mixture) + divergence(student, mixture)) / 2, reduction, mask)


class SymmetricKL(nn.Module):
    """Module form of `symmetric_kl`.

    Args:
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return symmetric_kl(student_logits, teacher_logits, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class JensenShannon(nn.Module):
    """Module form of `jensen_shannon`.

    Args:
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return jensen_shannon(student_logits, teacher_logits, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"

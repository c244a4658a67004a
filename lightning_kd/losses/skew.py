"""KL divergences to a mixture of both distributions, which cannot grow without bound."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import divergence, log_probabilities, score_operands


def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    skew: float = 0.1,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence from the teacher's distribution to the student's, mixed with some of the teacher's.

    .. math::
        L = \mathrm{KL}\bigl(p^t \,\|\, \lambda p^t + (1 - \lambda) p^s\bigr), \qquad p = \mathrm{softmax}(z)

    At most :math:`-\log \lambda`, with a gradient that stays small where the student gives a likely class almost no
    probability. No gradient flows to ``teacher_logits``. A class masked with ``-inf`` on both sides contributes
    nothing.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        skew: Share :math:`\lambda` of the teacher in the mixture, above 0 and below 1.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``skew`` is not between 0 and 1 or ``reduction`` is unknown.

    Source:
        Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", arXiv:2402.03898. Its code
        returns the cross-entropy to the mixture, larger by the teacher's entropy and equal in gradient.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import skew_kl
        >>> certain = torch.tensor([[40.0, 0.0]])
        >>> skew_kl(-certain, certain, skew=0.5)  # the mixture gives the teacher's class 1/2: log 2
        tensor(0.6931)
    """
    check_skew(skew)
    check_reduction(reduction)
    student, teacher = (log_probabilities(z) for z in score_operands(student_logits, teacher_logits, mask))
    return reduce(divergence(teacher, _mixture(teacher, student, skew)), reduction, mask)


def skew_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    skew: float = 0.1,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence from the student's distribution to the teacher's, mixed with some of the student's.

    .. math::
        L = \mathrm{KL}\bigl(p^s \,\|\, (1 - \lambda) p^t + \lambda p^s\bigr), \qquad p = \mathrm{softmax}(z)

    At most :math:`-\log \lambda`. It asks the student to be certain of what the teacher finds likely, not to cover all
    of it. The gradient also flows through the student's share of the mixture, and none to ``teacher_logits``. A class
    masked with ``-inf`` on both sides contributes nothing.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        skew: Share :math:`\lambda` of the student in the mixture, above 0 and below 1.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``skew`` is not between 0 and 1 or ``reduction`` is unknown.

    Source:
        Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", arXiv:2402.03898.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import skew_reverse_kl
        >>> certain = torch.tensor([[40.0, 0.0]])
        >>> skew_reverse_kl(-certain, certain, skew=0.25)  # the mixture gives the student's class 1/4: log 4
        tensor(1.3863)
    """
    check_skew(skew)
    check_reduction(reduction)
    student, teacher = (log_probabilities(z) for z in score_operands(student_logits, teacher_logits, mask))
    return reduce(divergence(student, _mixture(student, teacher, skew)), reduction, mask)


class SkewKL(nn.Module):
    """Module form of `skew_kl`.

    Args:
        skew: Share of the teacher in the mixture, above 0 and below 1.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``skew`` is not between 0 and 1 or ``reduction`` is unknown.
    """

    def __init__(self, *, skew: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_skew(skew)
        check_reduction(reduction)
        self.skew = skew
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return skew_kl(student_logits, teacher_logits, skew=self.skew, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"skew={self.skew}, reduction={self.reduction!r}"


class SkewReverseKL(nn.Module):
    """Module form of `skew_reverse_kl`.

    Args:
        skew: Share of the student in the mixture, above 0 and below 1.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``skew`` is not between 0 and 1 or ``reduction`` is unknown.
    """

    def __init__(self, *, skew: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_skew(skew)
        check_reduction(reduction)
        self.skew = skew
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return skew_reverse_kl(student_logits, teacher_logits, skew=self.skew, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"skew={self.skew}, reduction={self.reduction!r}"


def check_skew(skew: float) -> None:
    """Raise `ValueError` unless ``skew`` mixes both distributions."""
    if not 0 < skew < 1:
        raise ValueError(f"`skew` must be above 0 and below 1, got {skew!r}: at 0 the divergence has no bound.")


def _mixture(own: Tensor, other: Tensor, skew: float) -> Tensor:
    """Logarithm of the mixture with a share ``skew`` of the distribution that is measured."""
    return torch.logaddexp(own + math.log(skew), other + math.log1p(-skew))

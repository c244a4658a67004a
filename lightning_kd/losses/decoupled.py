"""Losses that treat the target class and the other classes apart."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import checked_target, divergence, score_operands, without_target
from lightning_kd.losses.cross_entropy import soft_cross_entropy


def decoupled_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence taken apart (DKD): target class against the rest, and among the rest, each with its own weight.

    .. math::
        L = T^2 \bigl(\alpha \, \mathrm{KL}(b^t \| b^s) + \beta \, \mathrm{KL}(\hat p^t \| \hat p^s)\bigr), \qquad
        b = (p_y, 1 - p_y), \quad \hat p = \mathrm{softmax}(z_{\setminus y} / T)

    With :math:`\alpha = 1`, and :math:`1 - p^t_y` of each sample in place of :math:`\beta`, this is `soft_target_kl`.
    The target's column is removed, not pushed down by a large constant, and :math:`\log(1 - p_y)` is a log-sum-exp:
    both stay exact for large scores. No gradient flows to ``teacher_logits``.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)`` with at least 2 classes, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        target: Class indices :math:`y`, shape ``(...)``, integer; for mixed labels their largest class.
        temperature: :math:`T > 0`, dimensionless.
        alpha: Weight of the target class against the rest, at least 0.
        beta: Weight among the other classes, at least 0.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all. Elsewhere ``target`` may
            hold anything.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes do not fit, or there are fewer than 2 classes.
        TypeError: If the logits are not floating point, ``target`` not integer or ``mask`` not boolean.
        ValueError: If an option, or on the CPU a class index, is out of range.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679. ``beta`` is 8 for resnet32x4 -> resnet8x4, 2
        for resnet56 and resnet110, 6 for VGG and WRN teachers.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import decoupled_kl
        >>> teacher = torch.tensor([[2.0, 3.0, 1.0]]).log()  # target 1/3 as the student says, the others 3/4 and 1/4
        >>> decoupled_kl(torch.zeros(1, 3), teacher, torch.tensor([0]), temperature=1.0, beta=1.0)
        tensor(0.1308)
    """
    check_positive("temperature", temperature)
    check_not_negative("alpha", alpha)
    check_not_negative("beta", beta)
    check_reduction(reduction)
    pair = score_operands(student_logits, teacher_logits, mask)
    index = checked_target(target, student_logits, mask)
    student, teacher = (scores / temperature for scores in pair)
    target_term = divergence(_target_or_not(teacher, index), _target_or_not(student, index))
    other_term = divergence(*(F.log_softmax(without_target(scores, index), dim=-1) for scores in (teacher, student)))
    return temperature**2 * reduce(alpha * target_term + beta * other_term, reduction, mask)


def normalized_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.5,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy at the target class weighted by the teacher, and among the others normalised (NKD).

    .. math::
        L = -p^t_y \log p^s_y - \gamma T^2 \sum_{k \ne y} \hat p^t_k \log \hat p^s_k, \qquad
        \hat p = \mathrm{softmax}(z_{\setminus y} / T)

    with :math:`p` at temperature 1. Both terms are cross-entropies, so the loss is not zero at equality; the second has
    zero gradient there. It comes on top of the ordinary cross-entropy. No gradient flows to ``teacher_logits``.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)`` with at least 2 classes, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        target: Class indices :math:`y`, shape ``(...)``, integer; for mixed labels their largest class.
        temperature: :math:`T > 0` of the other classes, dimensionless.
        gamma: Weight of the other classes, at least 0.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all. Elsewhere ``target`` may
            hold anything.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the shapes do not fit, or there are fewer than 2 classes.
        TypeError: If the logits are not floating point, ``target`` not integer or ``mask`` not boolean.
        ValueError: If an option, or on the CPU a class index, is out of range.

    Source:
        Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized
        Loss and Customized Soft Labels", arXiv:2303.13005. Defaults are those of ImageNet (``gamma`` 1 for DeiT);
        CIFAR-100 takes temperature 3 and ``gamma`` 3.5.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import normalized_cross_entropy
        >>> even = torch.zeros(1, 4)
        >>> normalized_cross_entropy(even, even, torch.tensor([2]), gamma=1.0)  # 1/4 log 4 + log 3
        tensor(1.4452)
    """
    check_positive("temperature", temperature)
    check_not_negative("gamma", gamma)
    check_reduction(reduction)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    index = checked_target(target, student_logits, mask)
    log_q, p = F.log_softmax(student, dim=-1).gather(-1, index), F.softmax(teacher, dim=-1).gather(-1, index)
    others = (without_target(scores, index) for scores in (student, teacher))
    other_term = soft_cross_entropy(*others, temperature=temperature, reduction="none")
    return reduce(gamma * temperature**2 * other_term - (p * log_q).squeeze(-1), reduction, mask)


class DecoupledKL(nn.Module):
    """Module form of `decoupled_kl`.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        alpha: Weight of the target class against the rest, at least 0.
        beta: Weight among the other classes, at least 0.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self, *, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
        check_reduction(reduction)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.reduction: Reduction = reduction

    @override
    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return decoupled_kl(
            student_logits,
            teacher_logits,
            target,
            temperature=self.temperature,
            alpha=self.alpha,
            beta=self.beta,
            mask=mask,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, alpha={self.alpha}, beta={self.beta}, reduction={self.reduction!r}"


class NormalizedCrossEntropy(nn.Module):
    """Module form of `normalized_cross_entropy`.

    Args:
        temperature: Softmax temperature of the other classes, above 0, dimensionless.
        gamma: Weight of the other classes, at least 0.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(self, *, temperature: float = 1.0, gamma: float = 1.5, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("gamma", gamma)
        check_reduction(reduction)
        self.temperature = temperature
        self.gamma = gamma
        self.reduction: Reduction = reduction

    @override
    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return normalized_cross_entropy(
            student_logits,
            teacher_logits,
            target,
            temperature=self.temperature,
            gamma=self.gamma,
            mask=mask,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gamma={self.gamma}, reduction={self.reduction!r}"


def _target_or_not(scores: Tensor, index: Tensor) -> Tensor:
    """Logarithms of the probabilities of the target class and of all others together, shape ``(..., 2)``."""
    log_p = F.log_softmax(scores, dim=-1)
    others = without_target(log_p, index).logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p.gather(-1, index), others], dim=-1)

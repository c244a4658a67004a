"""Cross-entropy with a teacher's distribution as the target."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.losses._common import Reduction, check_reduction, reduce
from lightning_kd.losses._scores import score_operands


def soft_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the student's class distribution under the teacher's.

    .. math::
        L = -\sum_c p_c \log q_c, \qquad
        p = \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    It exceeds the KL divergence by the teacher's entropy, which has no gradient, and has no factor :math:`T^2`. No
    gradient flows to ``teacher_logits``. A class that the teacher masks with ``-inf`` contributes nothing.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        temperature: :math:`T > 0`, dimensionless.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: a scalar of shape ``()``, or shape ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import soft_cross_entropy
        >>> soft_cross_entropy(torch.zeros(1, 4), torch.randn(1, 4))  # log 4, whatever the teacher says
        tensor(1.3863)
    """
    check_positive("temperature", temperature)
    check_reduction(reduction)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    log_q = F.log_softmax(student / temperature, dim=-1)
    p = F.softmax(teacher / temperature, dim=-1)
    return reduce(-(p * log_q.masked_fill(p == 0, 0.0)).sum(dim=-1), reduction, mask)


class SoftCrossEntropy(nn.Module):
    """Module form of `soft_cross_entropy`.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.
    """

    def __init__(self, *, temperature: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return soft_cross_entropy(
            student_logits, teacher_logits, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"

"""Losses on class scores."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce


def soft_target_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Temperature-scaled KL divergence from the teacher's to the student's class distribution.

    .. math::
        L = T^2 \sum_c p_c \log\frac{p_c}{q_c}, \qquad
        p = \mathrm{softmax}(z_t / T), \quad q = \mathrm{softmax}(z_s / T)

    The factor :math:`T^2` keeps the gradient's scale roughly independent of ``temperature``. Both softmaxes
    are taken in at least float32: half inputs are promoted, float64 stays. No gradient flows to ``teacher_logits``.
    A class that the teacher masks with ``-inf`` has :math:`p_c = 0` and contributes nothing.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        temperature: :math:`T > 0`, dimensionless. ``1.0`` is the plain KL divergence.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: a scalar of shape ``()``, or shape ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty.
        TypeError: If the logits are not floating point.
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import soft_target_kl
        >>> teacher_logits = torch.tensor([[3.0, 1.0]]).log()  # probabilities 3/4 and 1/4
        >>> soft_target_kl(torch.zeros(1, 2), teacher_logits, temperature=1.0)
        tensor(0.1308)
    """
    check_positive("temperature", temperature)
    check_reduction(reduction)
    check_same_shape(student_logits, teacher_logits, "Logits")
    student, teacher = operands(student_logits, teacher_logits, "_logits")
    log_q = F.log_softmax(student / temperature, dim=-1)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    terms = F.kl_div(log_q, log_p, reduction="none", log_target=True).masked_fill(log_p.isneginf(), 0.0)
    return temperature**2 * reduce(terms.sum(dim=-1), reduction)


class SoftTargetKL(nn.Module):
    """Module form of `soft_target_kl`.

    Args:
        temperature: Softmax temperature :math:`T > 0`, dimensionless.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Example:
        >>> from lightning_kd.losses import SoftTargetKL
        >>> SoftTargetKL(temperature=2.0)
        SoftTargetKL(temperature=2.0, reduction='mean')
    """

    def __init__(self, *, temperature: float = 4.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return soft_target_kl(student_logits, teacher_logits, temperature=self.temperature, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"

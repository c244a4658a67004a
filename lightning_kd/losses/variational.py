"""Variational bound on the information that a teacher's feature shares with a student's."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce


def variational_information(
    student: Tensor, teacher: Tensor, variance: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Negative log-likelihood of the teacher's feature under a Gaussian around the student's prediction (VID).

    .. math::
        L = \tfrac12 \Big( \frac{(\mu - t)^2}{v_c} + \log v_c \Big)

    at each element, without the constant :math:`\tfrac12 \log 2\pi`. Minimising it over :math:`\mu` and :math:`v`
    maximises a lower bound on the mutual information of the two features. It is not zero at equality, and negative for
    small errors and variances below 1. No gradient flows to ``teacher``; ``variance`` is meant to learn.

    Args:
        student: Prediction :math:`\mu` of the teacher's feature, channels first, ``(N, C, *grid)``, floating point.
        teacher: The teacher's feature :math:`t`, same shape.
        variance: :math:`v_c > 0` per channel, shape ``(C,)``, in squared units of the feature. Not checked, because
            that would wait for the device.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, at least float32: shape ``()``, or that of ``student`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty, or ``variance`` is not one value per channel.
        TypeError: If the features are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import variational_information
        >>> student, teacher = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> variational_information(student, teacher, torch.ones(1))  # (1² / 1 + log 1) / 2
        tensor(0.5000)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    mean, target = operands(student, teacher)
    if student.ndim < 2 or variance.shape != student.shape[1:2]:
        raise ShapeError(
            f"`variance` must have one value per channel of the features {tuple(student.shape)}, "
            f"got shape {tuple(variance.shape)}."
        )
    per_channel = variance.to(mean.dtype).view(-1, *(1,) * (mean.ndim - 2))
    return reduce(0.5 * ((mean - target).square() / per_channel + per_channel.log()), reduction)


class VariationalInformation(nn.Module):
    """Module form of `variational_information`.

    Args:
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
        return variational_information(student, teacher, variance, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"

"""Loss between channels read as distributions over the positions."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction
from lightning_kd.losses.logit import soft_target_kl


def channel_wise_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""KL divergence between the positions' softmax of each channel (CWD): where the teacher looks for each channel.

    .. math::
        L = \frac{T^2}{N C} \sum_{n,c} \mathrm{KL}(p^t_{nc} \,\Vert\, p^s_{nc}), \qquad
        p_{nc} = \mathrm{softmax}_i (F_{nci} / T)

    It is `soft_target_kl` with positions for classes and (sample, channel) for samples. Unlike a loss per position it
    is blind to a constant added to a channel. No gradient flows to ``teacher``.

    Args:
        student: Feature or class scores, channels first, ``(N, C, *grid)`` with at least one grid axis, floating point.
        teacher: The same, same shape as ``student``.
        temperature: :math:`T > 0`, dimensionless.
        mask: Positions that count, boolean, shape ``(N, *grid)``; ``None`` counts all. The others are left out of the
            softmax. A sample of which no position counts contributes nothing, not even to the mean; if none counts in
            the whole batch, the loss is a 0 that keeps the graph.
        reduction: ``"mean"`` over samples and channels, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N, C)`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape, are empty or have no grid, or ``mask`` is not on their grid.
        TypeError: If the features are not floating point.
        ValueError: If ``temperature`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", arXiv:2011.13256. The mask is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import channel_wise_kl
        >>> teacher = torch.tensor([[[3.0, 1.0]]]).log()  # probabilities 3/4 and 1/4 over two positions
        >>> channel_wise_kl(torch.zeros(1, 1, 2), teacher)
        tensor(0.1308)
    """
    check_positive("temperature", temperature)
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    if student.ndim < 3:
        raise ShapeError(f"`student` must have a grid after (N, C), got shape {tuple(student.shape)}.")
    counted = None
    if mask is not None:
        _check_mask(mask, student)
        student, teacher = (feature.masked_fill(~mask.unsqueeze(1), float("-inf")) for feature in (student, teacher))
        counted = mask.flatten(1).any(dim=1, keepdim=True).expand(student.shape[:2])
    return soft_target_kl(
        student.flatten(2), teacher.flatten(2), temperature=temperature, mask=counted, reduction=reduction
    )


class ChannelWiseKL(nn.Module):
    """Module form of `channel_wise_kl`.

    Args:
        temperature: Softmax temperature :math:`T > 0`, dimensionless.
        reduction: ``"mean"`` over samples and channels, ``"sum"``, or ``"none"``.

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
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return channel_wise_kl(student, teacher, temperature=self.temperature, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


def _check_mask(mask: Tensor, feature: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != (feature.shape[0], *feature.shape[2:]):
        raise ShapeError(
            f"`mask` must be boolean of shape {(feature.shape[0], *feature.shape[2:])}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )

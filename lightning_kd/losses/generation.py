"""Loss of generated features: summed over each sample, averaged over the batch."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce


def generation_error(
    student: Tensor, teacher: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared error summed over each sample, averaged over the batch.

    .. math::
        L = \frac{1}{N} \sum_{n=1}^{N} \sum_i m_{ni} (s_{ni} - t_{ni})^2

    It grows with channels and positions, which is why published weights are small. No gradient flows to ``teacher``.

    Args:
        student: Generated feature, any shape with the samples first, floating point.
        teacher: Feature, same shape.
        mask: What counts (:math:`m`), boolean, of a shape that broadcasts to the features'; ``None`` counts all. Where
            nothing counts the loss is 0.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss in squared units of the feature, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty, or ``mask`` does not broadcast to them.
        TypeError: If the features are not floating point or ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Yang et al., "Masked Generative Distillation", arXiv:2205.01529 (all elements count); Yang et al., "ViTKD",
        arXiv:2209.02432 (the masked tokens count).

    Example:
        >>> import torch
        >>> from lightning_kd.losses import generation_error
        >>> student, teacher = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 2.0]])
        >>> generation_error(student, teacher)  # (1 + 4 + 9 + 4) / 2
        tensor(9.)
        >>> generation_error(student, teacher, mask=torch.tensor([[True, False, False]]))  # (1 + 0) / 2
        tensor(0.5000)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = operands(student, teacher)
    difference = s - t
    if mask is not None:
        _check_mask(mask, difference)
        difference = difference.masked_fill(~mask, 0.0)
    error = difference.square()
    return reduce(error.flatten(1).sum(dim=1) if error.ndim > 1 else error, reduction)


class GenerationError(nn.Module):
    """Module form of `generation_error`.

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
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return generation_error(student, teacher, mask=mask, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _check_mask(mask: Tensor, feature: Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be boolean, got {mask.dtype}.")
    sizes = zip(mask.shape[::-1], feature.shape[::-1], strict=False)
    if mask.ndim > feature.ndim or any(size not in (1, full) for size, full in sizes):
        raise ShapeError(f"`mask` must broadcast to {tuple(feature.shape)}, got shape {tuple(mask.shape)}.")

"""Losses from several teachers at once, of which some are left out for each sample."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce
from lightning_kd.losses.feature import cosine_distance


def cosine_smooth_l1(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Half the cosine distance plus half the smooth L1 distance of two vectors.

    .. math::
        L = \tfrac{1}{2} \bigl(1 - \cos(s, t)\bigr) + \tfrac{1}{2D} \sum_d h(s_d - t_d), \qquad
        h(x) = \begin{cases} x^2 / 2 & |x| < 1 \\ |x| - 1/2 & \text{otherwise} \end{cases}

    Direction and length are so both compared, and large errors count linearly. No gradient flows to ``teacher``.

    Args:
        student: Vectors, shape ``(..., D)``, floating point.
        teacher: Vectors, same shape.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two differ in shape or are empty.
        TypeError: If they are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", arXiv:2408.05088.

    Example:
        >>> from lightning_kd.losses import cosine_smooth_l1
        >>> cosine_smooth_l1(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.0, 1.0, 3.0]]))
        tensor(0.9419)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = operands(student, teacher)
    lengths = F.smooth_l1_loss(s, t, reduction="none").mean(dim=-1)
    return reduce(0.5 * (cosine_distance(s, t, channel_axis=-1, reduction="none") + lengths), reduction)


def dropped_mean(losses: Tensor, *, probability: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    r"""Mean of the losses of several teachers, without some of them for each sample.

    .. math::
        L = \frac{\sum_{jn} c_{jn} l_{jn}}{\sum_{jn} c_{jn}}

    where :math:`c_{jn}` is 1 for the teacher with the largest loss on a sample, and 0 with ``probability`` for each
    other. So no teacher that is easy to follow outweighs the one that is not. Samples that keep more teachers count
    more, as in the published code.

    Args:
        losses: :math:`l_{jn}` of each teacher and sample, shape ``(M, N)``, floating point.
        probability: Chance of leaving a teacher out, from 0 to 1, dimensionless.
        generator: Source of the choice, on the CPU; ``None`` uses the global one.

    Returns:
        Shape ``()``, in the type of ``losses``.

    Raises:
        ShapeError: If ``losses`` has not two axes or is empty.
        ValueError: If ``probability`` is out of range.

    Source:
        Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", arXiv:2408.05088.

    Example:
        >>> from lightning_kd.losses import dropped_mean
        >>> losses = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
        >>> dropped_mean(losses, probability=0.0), dropped_mean(losses, probability=1.0)
        (tensor(1.7500), tensor(2.5000))
    """
    check_fraction("probability", probability)
    if losses.ndim != 2 or losses.numel() == 0:
        raise ShapeError(f"`losses` must have shape (teachers, samples), got {tuple(losses.shape)}.")
    chosen = torch.rand(losses.shape, generator=generator) >= probability
    worst = F.one_hot(losses.detach().argmax(dim=0), len(losses)).T.bool()
    kept = (chosen.to(losses.device) | worst).to(losses.dtype)
    return (kept * losses).sum() / kept.sum()


class CosineSmoothL1(nn.Module):
    """Module form of `cosine_smooth_l1`.

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
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cosine_smooth_l1(student, teacher, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class DroppedMean(nn.Module):
    """Module form of `dropped_mean`.

    Args:
        probability: Chance of leaving a teacher out, from 0 to 1, dimensionless.

    Raises:
        ValueError: If ``probability`` is out of range.
    """

    def __init__(self, *, probability: float = 0.5) -> None:
        super().__init__()
        check_fraction("probability", probability)
        self.probability = probability

    @override
    def forward(self, losses: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return dropped_mean(losses, probability=self.probability, generator=generator)

    @override
    def extra_repr(self) -> str:
        return f"probability={self.probability}"

"""Loss between the spatial attention maps of two features."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.layout import common_grid
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce


def attention_transfer(student: Tensor, teacher: Tensor, *, power: int = 2, reduction: Reduction = "mean") -> Tensor:
    r"""Mean squared difference of two attention maps (AT): where each network is active, whatever its channels say.

    .. math::
        L = \frac{1}{N M} \sum_{n,i} (Q(s)_{ni} - Q(t)_{ni})^2, \qquad
        Q(F) = \frac{a}{\lVert a \rVert_2}, \quad a_i = \frac{1}{C} \sum_c F_{ci}^{\,p}

    over the :math:`M` positions of the smaller grid, to which the feature on the larger one is averaged first. The two
    may differ in channels. Lengths below 1e-12 count as 1e-12, so that a map of zeros stays zero. No gradient flows to
    ``teacher``.

    Args:
        student: Channels-first feature ``(N, C_s, *grid)`` with one or two grid axes, floating point.
        teacher: Channels-first feature ``(N, C_t, *grid)`` with as many grid axes.
        power: :math:`p`, at least 1.
        reduction: ``"mean"`` over samples and positions, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, non-negative, at least float32: shape ``()``, or ``(N, *grid)`` for ``"none"``.

    Raises:
        LayoutError: If one side is a map and the other a sequence of frames.
        ShapeError: If a feature has no grid, is empty, or the batch sizes differ.
        TypeError: If the features are not floating point.
        ValueError: If ``power`` is not a whole number of at least 1 or ``reduction`` is unknown.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", arXiv:1612.03928. The form is that of the
        CIFAR-100 baselines: the mean over positions, and :math:`F^p` where the paper has :math:`|F|^p`. The two are
        equal for even powers and for features after a ReLU; for the paper's form pass ``feature.abs()``.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import attention_transfer
        >>> student, teacher = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
        >>> attention_transfer(student, teacher)  # maps (1, 0) and (0, 1): ((1 - 0)² + (0 - 1)²) / 2
        tensor(1.)
    """
    _check_power(power)
    check_reduction(reduction)
    for name, feature in (("student", student), ("teacher", teacher)):
        if feature.ndim not in (3, 4):
            raise ShapeError(f"`{name}` must be a map (N, C, H, W) or frames (N, C, T), got {tuple(feature.shape)}.")
    s, t = (attention_map(feature, power=power) for feature in common_grid(*operands(student, teacher)))
    check_same_shape(s, t, "Attention maps")
    return reduce((s - t).square(), reduction)


def attention_map(feature: Tensor, *, power: int = 2) -> Tensor:
    """Activity at each position, of length 1 over the grid: ``(N, C, *grid)`` to ``(N, *grid)``."""
    activity = feature.pow(power).mean(dim=1)
    return F.normalize(activity.flatten(1), dim=1).view_as(activity)


class AttentionTransfer(nn.Module):
    """Module form of `attention_transfer`.

    Args:
        power: Power of the activations, at least 1.
        reduction: ``"mean"`` over samples and positions, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``power`` is not a whole number of at least 1 or ``reduction`` is unknown.
    """

    def __init__(self, *, power: int = 2, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_power(power)
        check_reduction(reduction)
        self.power = power
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return attention_transfer(student, teacher, power=self.power, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"power={self.power}, reduction={self.reduction!r}"


def _check_power(power: object) -> None:
    if isinstance(power, bool) or not isinstance(power, int) or power < 1:
        raise ValueError(f"`power` must be a whole number of at least 1, got {power!r}.")

"""Losses between features of equal shape: channels first, ``(N, C, *grid)`` with zero to three grid axes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_same_shape
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce

Normalization = Literal["none", "layer", "l2"]
EPSILON = 1e-6


def feature_mse(
    student: Tensor,
    teacher: Tensor,
    *,
    normalization: Normalization = "none",
    channel_axis: int = 1,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Mean squared error between two features, each normalised over its channels before.

    .. math::
        L = \frac{1}{M} \sum_{i=1}^{M} (\phi(s)_i - \phi(t)_i)^2

    with :math:`M` the number of elements and :math:`\phi` the identity (``"none"``), the vector at each position
    minus its mean over its standard deviation (``"layer"``: LayerNorm without affine, epsilon 1e-6 on the variance),
    or the vector at each position over its length (``"l2"``: lengths below 1e-6 count as 1e-6). No gradient flows to
    ``teacher``.

    Args:
        student: Feature, any shape with at least one axis, floating point.
        teacher: Feature, same shape as ``student``.
        normalization: ``"none"``, ``"layer"`` or ``"l2"``.
        channel_axis: Axis of the channels: 1 for maps ``(N, C, H, W)``, -1 for tokens ``(N, L, D)``. Only
            normalisation depends on it.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Returns:
        Loss in squared units of the (normalised) feature, non-negative, at least float32: shape ``()``, or that of
        ``student`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty.
        TypeError: If the features are not floating point.
        ValueError: If ``normalization`` or ``reduction`` is unknown.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550 (without normalisation).

    Example:
        >>> import torch
        >>> from lightning_kd.losses import feature_mse
        >>> student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
        >>> feature_mse(student, teacher)
        tensor(2.5000)
        >>> feature_mse(student, teacher, normalization="l2")  # same direction
        tensor(0.)
    """
    check_choice("normalization", normalization, ("none", "layer", "l2"))
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = (normalize_channels(feature, normalization, channel_axis) for feature in operands(student, teacher))
    return F.mse_loss(s, t, reduction=reduction)


def cosine_distance(
    student: Tensor, teacher: Tensor, *, channel_axis: int = 1, reduction: Reduction = "mean"
) -> Tensor:
    r"""One minus the cosine between the channel vectors of two features, at each position.

    .. math::
        L = \tfrac{1}{2} \lVert \hat s - \hat t \rVert^2 = 1 - \cos(s, t)

    where the hat divides by the length. The first form is computed: unlike the second it is exactly zero at equality,
    never negative, and defined for vectors of length zero, which stay zero (lengths below 1e-6 count as 1e-6). No
    gradient flows to ``teacher``.

    Args:
        student: Feature, any shape with at least one axis, floating point.
        teacher: Feature, same shape as ``student``.
        channel_axis: Axis of the channels: 1 for maps ``(N, C, H, W)``, -1 for tokens ``(N, L, D)``.
        reduction: ``"mean"`` over all positions, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, in [0, 2], at least float32: shape ``()``, or that of ``student`` without the channel axis
        for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty.
        TypeError: If the features are not floating point.
        ValueError: If ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import cosine_distance
        >>> cosine_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
        tensor(1.)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = (normalize_channels(feature, "l2", channel_axis) for feature in operands(student, teacher))
    return 0.5 * reduce((s - t).square().sum(dim=channel_axis), reduction)


class FeatureMSE(nn.Module):
    """Module form of `feature_mse`.

    Args:
        normalization: ``"none"``, ``"layer"`` or ``"l2"``, over the channels.
        channel_axis: Axis of the channels: 1 for maps, -1 for tokens.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``normalization`` or ``reduction`` is unknown.
    """

    def __init__(
        self, *, normalization: Normalization = "none", channel_axis: int = 1, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_choice("normalization", normalization, ("none", "layer", "l2"))
        check_reduction(reduction)
        self.normalization: Normalization = normalization
        self.channel_axis = channel_axis
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return feature_mse(
            student,
            teacher,
            normalization=self.normalization,
            channel_axis=self.channel_axis,
            reduction=self.reduction,
        )

    @override
    def extra_repr(self) -> str:
        return f"normalization={self.normalization!r}, channel_axis={self.channel_axis}, reduction={self.reduction!r}"


class CosineDistance(nn.Module):
    """Module form of `cosine_distance`.

    Args:
        channel_axis: Axis of the channels: 1 for maps, -1 for tokens.
        reduction: ``"mean"`` over all positions, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, channel_axis: int = 1, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.channel_axis = channel_axis
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cosine_distance(student, teacher, channel_axis=self.channel_axis, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"channel_axis={self.channel_axis}, reduction={self.reduction!r}"


def normalize_channels(feature: Tensor, normalization: Normalization, channel_axis: int) -> Tensor:
    """``feature`` normalised over its channels, as `feature_mse` says."""
    if normalization == "layer":
        variance, mean = torch.var_mean(feature, dim=channel_axis, correction=0, keepdim=True)
        return (feature - mean) * torch.rsqrt(variance + EPSILON)
    return F.normalize(feature, dim=channel_axis, eps=EPSILON) if normalization == "l2" else feature

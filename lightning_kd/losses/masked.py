"""Losses of masked image modelling and of its distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands
from lightning_kd.losses.feature import EPSILON, normalize_channels


def masked_reconstruction(prediction: Tensor, target: Tensor, mask: Tensor, *, normalize: bool = True) -> Tensor:
    r"""Mean squared error of the pixels of hidden patches, as masked autoencoders are trained with.

    .. math::
        L = \frac{1}{|M|} \sum_{i \in M} \frac{1}{P} \lVert \hat x_i - \phi(x_i) \rVert^2, \qquad
        \phi(x_i) = \frac{x_i - \bar x_i}{\sqrt{\mathrm{var}(x_i) + 10^{-6}}}

    with :math:`M` the hidden patches of the whole batch, :math:`P` the values of a patch and var the unbiased variance
    (over :math:`P - 1`) of its values; without ``normalize`` :math:`\phi` is the identity.

    Args:
        prediction: Predicted patches, shape ``(N, L, P)``, floating point.
        target: True patches, same shape, see `lightning_kd.students.patchify`; no gradient flows to them.
        mask: Which patches were hidden, shape ``(N, L)``, boolean.
        normalize: Whether each patch is standardised over its own values before.

    Returns:
        Loss, non-negative, at least float32, shape ``()``; a zero that keeps the graph if nothing was hidden.

    Raises:
        ShapeError: If the shapes do not fit together, are empty, or ``normalize`` and a patch holds a single value.
        TypeError: If ``mask`` is not boolean.

    Source:
        He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv:2111.06377.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import masked_reconstruction
        >>> target, mask = torch.tensor([[[1.0, 3.0], [7.0, 9.0]]]), torch.tensor([[True, False]])
        >>> masked_reconstruction(torch.zeros(1, 2, 2), target, mask, normalize=False)  # (1 + 9) / 2
        tensor(5.)
    """
    check_same_shape(prediction, target, "Patches of prediction and target")
    if prediction.ndim != 3 or prediction.numel() == 0 or mask.shape != prediction.shape[:2]:
        raise ShapeError(
            "`prediction` must have shape (N, L, P), not empty, and `mask` (N, L), "
            f"got {tuple(prediction.shape)} and {tuple(mask.shape)}."
        )
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be boolean, got {mask.dtype}.")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    difference = prediction.to(dtype) - _standardized(target.detach().to(dtype), normalize)
    return difference.square().mean(dim=2).masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def direction_l1(student: Tensor, teacher: Tensor, *, channel_axis: int = -1, reduction: Reduction = "mean") -> Tensor:
    r"""Mean absolute difference of two features, each vector over the channels brought to length 1 before.

    .. math::
        L = \frac{1}{M} \sum_{i=1}^{M} |\hat s_i - \hat t_i|

    with :math:`M` the number of elements; the hat divides by the length (lengths below 1e-6 count as 1e-6). No gradient
    flows to ``teacher``.

    Args:
        student: Feature, any shape with at least one axis, floating point.
        teacher: Feature, same shape as ``student``.
        channel_axis: Axis of the channels: -1 for tokens ``(N, L, D)``, 1 for maps ``(N, C, H, W)``.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, non-negative, at least float32: shape ``()``, or that of ``student`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty.
        TypeError: If the features are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Bai et al., "Masked Autoencoders Enable Efficient Knowledge Distillers" (DMAE), arXiv:2208.12256; the form is
        that of its code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import direction_l1
        >>> direction_l1(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]))  # (|0.6 - 1| + |0.8 - 0|) / 2
        tensor(0.6000)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = (normalize_channels(feature, "l2", channel_axis) for feature in operands(student, teacher))
    return F.l1_loss(s, t, reduction=reduction)


def standardized_smooth_l1(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 2.0,
    channel_axis: int = -1,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Smooth L1 distance to the teacher's feature, which alone is standardised over its channels.

    .. math::
        L = \frac{1}{M} \sum_{i=1}^{M} h(s_i - \mathrm{LN}_0(t)_i), \qquad
        h(d) = \begin{cases} d^2 / 2\beta & |d| < \beta \\ |d| - \beta / 2 & \text{else} \end{cases}

    with :math:`\mathrm{LN}_0` LayerNorm without affine, epsilon 1e-6 on the variance. A student whose feature is
    standardised is therefore a minimum, one that equals the teacher's raw feature is not. No gradient flows to
    ``teacher``.

    Args:
        student: Feature, already brought to the teacher's width, any shape with at least one axis, floating point.
        teacher: Feature, same shape as ``student``.
        beta: :math:`\beta > 0`, where the square becomes linear, dimensionless.
        channel_axis: Axis of the channels: -1 for tokens ``(N, L, D)``, 1 for maps ``(N, C, H, W)``.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, non-negative, at least float32: shape ``()``, or that of ``student`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape or are empty.
        TypeError: If the features are not floating point.
        ValueError: If ``beta`` is not a finite number above 0 or ``reduction`` is unknown.

    Source:
        Huang et al., "Generic-to-Specific Distillation of Masked Autoencoders" (G2SD), arXiv:2302.14771; the form is
        that of its code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import standardized_smooth_l1
        >>> standardized_smooth_l1(torch.zeros(1, 4), torch.tensor([[1.0, 2.0, 3.0, 6.0]]))  # mean square 1, over 4
        tensor(0.2500)
    """
    check_positive("beta", beta)
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    s, t = operands(student, teacher)
    return F.smooth_l1_loss(s, normalize_channels(t, "layer", channel_axis), beta=beta, reduction=reduction)


class MaskedReconstruction(nn.Module):
    """Module form of `masked_reconstruction`.

    Args:
        normalize: Whether each patch is standardised over its own values before.
    """

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize

    @override
    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return masked_reconstruction(prediction, target, mask, normalize=self.normalize)

    @override
    def extra_repr(self) -> str:
        return f"normalize={self.normalize}"


class DirectionL1(nn.Module):
    """Module form of `direction_l1`.

    Args:
        channel_axis: Axis of the channels: -1 for tokens, 1 for maps.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, channel_axis: int = -1, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.channel_axis = channel_axis
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return direction_l1(student, teacher, channel_axis=self.channel_axis, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"channel_axis={self.channel_axis}, reduction={self.reduction!r}"


class StandardizedSmoothL1(nn.Module):
    """Module form of `standardized_smooth_l1`.

    Args:
        beta: Where the square becomes linear, above 0, dimensionless.
        channel_axis: Axis of the channels: -1 for tokens, 1 for maps.
        reduction: ``"mean"`` over all elements, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``beta`` is not a finite number above 0 or ``reduction`` is unknown.
    """

    def __init__(self, *, beta: float = 2.0, channel_axis: int = -1, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("beta", beta)
        check_reduction(reduction)
        self.beta = beta
        self.channel_axis = channel_axis
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return standardized_smooth_l1(
            student, teacher, beta=self.beta, channel_axis=self.channel_axis, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"beta={self.beta}, channel_axis={self.channel_axis}, reduction={self.reduction!r}"


def _standardized(patches: Tensor, normalize: bool) -> Tensor:
    if not normalize:
        return patches
    if patches.shape[2] < 2:
        raise ShapeError("`normalize` needs at least 2 values per patch, got 1: pass normalize=False.")
    # The variance is over P - 1, as in the published code; that of LayerNorm is over P.
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return (patches - mean) / (variance + EPSILON).sqrt()

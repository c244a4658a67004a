"""Losses of networks with several exits."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce, without_autocast
from lightning_kd.losses.logit import soft_target_kl

IGNORED = -100


def exit_cross_entropy(student_logits: Sequence[Tensor], target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    r"""Sum over the exits of their cross-entropies with the labels.

    .. math::
        L = \sum_i \mathrm{CE}(z_i, y)

    Args:
        student_logits: Logits of each exit, shape ``(N, K)`` or ``(N, K, H, W)``, floating point.
        target: Class indices of shape ``(N,)`` or ``(N, H, W)`` (-100 does not count), or mixed labels of shape
            ``(N, K)``.
        label_smoothing: Probability in [0, 1] that is spread over all classes.

    Returns:
        Loss in nats, non-negative, at least float32, shape ``()``; each cross-entropy is a mean over the labels that
        count, and a zero that keeps the graph if none does.

    Raises:
        ShapeError: If there is no exit.
        ValueError: If ``label_smoothing`` is not in [0, 1].

    Source:
        Xu et al., "LGViT: Dynamic Early Exiting for Accelerating Vision Transformer", arXiv:2308.00255, where it has
        weight 0.7 and the final classifier is not among the exits.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import exit_cross_entropy
        >>> exit_cross_entropy([torch.zeros(1, 2), torch.zeros(1, 2)], torch.tensor([1]))  # 2 log 2
        tensor(1.3863)
    """
    _check_smoothing(label_smoothing)
    if not student_logits:
        raise ShapeError("`student_logits` must hold the logits of at least one exit, got none.")
    return torch.stack([_cross_entropy(z, target, label_smoothing) for z in student_logits]).sum()


def channel_distribution_kl(
    student: Tensor, teacher: Tensor, *, channel_axis: int = 1, reduction: Reduction = "mean"
) -> Tensor:
    r"""KL divergence between the softmaxes over the channels, summed over the positions.

    .. math::
        L = \frac{1}{N} \sum_n \sum_u \mathrm{KL}(\mathrm{softmax}(t_{nu}) \,\|\, \mathrm{softmax}(s_{nu}))

    with :math:`u` the positions (tokens, cells of a map). LGViT's heterogeneous distillation. No gradient flows to
    ``teacher``.

    Args:
        student: Feature, any shape with at least two axes, the first that of the samples, floating point.
        teacher: Feature, same shape as ``student``.
        channel_axis: Axis of the channels: 1 for maps ``(N, C, H, W)``, -1 for tokens ``(N, L, D)``.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``; positions are always summed.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the two features differ in shape, are empty, or have fewer than two axes.
        TypeError: If the features are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Xu et al., "LGViT", arXiv:2308.00255; the form is that of its code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import channel_distribution_kl
        >>> teacher = torch.tensor([[[3.0, 1.0], [3.0, 1.0]]]).log()  # probabilities 3/4 and 1/4 at two positions
        >>> channel_distribution_kl(torch.zeros(1, 2, 2), teacher, channel_axis=-1)  # twice 3/4 log 3 - log 2
        tensor(0.2616)
    """
    check_reduction(reduction)
    check_same_shape(student, teacher, "Features")
    if student.ndim < 2:
        raise ShapeError(f"`student` must have axes for samples and channels, got shape {tuple(student.shape)}.")
    s, t = (feature.movedim(channel_axis, -1) for feature in (student, teacher))
    each = soft_target_kl(s, t, temperature=1.0, reduction="none")
    return reduce(each.flatten(1).sum(dim=1) if each.ndim > 1 else each, reduction)


def channel_gram_mse(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean squared error between the channels' Gram matrices of two features, whatever their grids.

    .. math::
        L = \frac{1}{N C^2} \sum_n \lVert X^s_n X_n^{s\top} - X^t_n X_n^{t\top} \rVert_F^2

    with :math:`X_n` of shape ``(C, positions)``. Nothing is normalised, so that a finer grid gives larger entries.
    LGViT's homogeneous distillation of attention exits. No gradient flows to ``teacher``.

    Args:
        student: Feature of shape ``(N, C, *grid)``, floating point.
        teacher: Feature of shape ``(N, C, *grid)``; its grid may be another.
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"``.

    Returns:
        Loss in the fourth power of the feature's unit, non-negative, at least float32: shape ``()``, or ``(N, C, C)``
        for ``"none"``.

    Raises:
        ShapeError: If the features differ in the number of samples or channels, are empty, or have fewer than two axes.
        TypeError: If the features are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Xu et al., "LGViT", arXiv:2308.00255; the form is that of its code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import channel_gram_mse
        >>> channel_gram_mse(torch.zeros(1, 2, 4), torch.ones(1, 2, 3))  # every entry is 3
        tensor(9.)
    """
    check_reduction(reduction)
    s, t = (feature.flatten(2) if feature.ndim > 2 else feature[..., None] for feature in operands(student, teacher))
    if s.ndim != 3 or s.shape[:2] != t.shape[:2]:
        raise ShapeError(
            "`student` and `teacher` must have shape (N, C, *grid) with the same N and C, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    with without_autocast(s):
        return F.mse_loss(s @ s.mT, t @ t.mT, reduction=reduction)


class ExitCrossEntropy(nn.Module):
    """Module form of `exit_cross_entropy`.

    Args:
        label_smoothing: Probability in [0, 1] that is spread over all classes.

    Raises:
        ValueError: If ``label_smoothing`` is not in [0, 1].
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        _check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    @override
    def forward(self, student_logits: Sequence[Tensor], target: Tensor) -> Tensor:
        return exit_cross_entropy(student_logits, target, label_smoothing=self.label_smoothing)

    @override
    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}"


class ChannelDistributionKL(nn.Module):
    """Module form of `channel_distribution_kl`.

    Args:
        channel_axis: Axis of the channels: 1 for maps, -1 for tokens.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

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
        return channel_distribution_kl(student, teacher, channel_axis=self.channel_axis, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"channel_axis={self.channel_axis}, reduction={self.reduction!r}"


class ChannelGramMSE(nn.Module):
    """Module form of `channel_gram_mse`.

    Args:
        reduction: ``"mean"`` over all entries, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return channel_gram_mse(student, teacher, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1], got {label_smoothing!r}.")


def _cross_entropy(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """Mean over the labels that count; a zero that keeps the graph if none does."""
    promoted = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = target.to(promoted.dtype) if target.is_floating_point() else target.long()
    with without_autocast(promoted):
        total = F.cross_entropy(promoted, target, label_smoothing=label_smoothing, reduction="sum")
    if target.is_floating_point():
        return total / (target.numel() / target.shape[1])
    return total / (target != IGNORED).sum().clamp(min=1)

"""Distance of two maps in one of the two views of ScaleKD."""

from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce
from lightning_kd.losses.feature import cosine_distance

View = Literal["spatial", "frequency"]
VIEWS: tuple[View, ...] = ("spatial", "frequency")


def view_distance(student: Tensor, teacher: Tensor, *, view: View = "spatial", reduction: Reduction = "mean") -> Tensor:
    r"""Squared distance of the channels' directions at each position, summed over the positions.

    .. math::
        L = \frac{1}{N} \sum_n \sum_u \lVert \hat a_{nu} - \hat b_{nu} \rVert^2

    where the hat divides the channel vector at position :math:`u` by its length. In the ``"frequency"`` view each
    channel's mean over the positions is subtracted before: that sets the constant component of its cosine transform to
    zero, so that what varies within the image counts, and what is common to all its positions does not. Being a sum,
    the loss grows with the grid. No gradient flows to ``teacher``.

    Args:
        student: Map :math:`a` of shape ``(N, C, *grid)`` with at least one grid axis, floating point.
        teacher: Map :math:`b`, same shape as ``student``.
        view: ``"spatial"`` or ``"frequency"``.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``; positions are always summed.

    Returns:
        Loss, dimensionless, from 0 to 4 per position, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the two maps differ in shape, are empty or have no grid, or in the frequency view have only one
            position, which nothing would be left of.
        TypeError: If the maps are not floating point.
        ValueError: If ``view`` or ``reduction`` is unknown.

    Source:
        Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", arXiv:2411.06786, with weight
        0.08 for the spatial and 0.06 for the frequency view. Its code transforms and transforms back; the result is
        the same.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import view_distance
        >>> student, teacher = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[4.0, 2.0]]])  # one channel, two positions
        >>> view_distance(student, teacher)  # both point up everywhere
        tensor(0.)
        >>> view_distance(student, teacher, view="frequency")  # (-1, 1) and (1, -1) point apart: 4 at each position
        tensor(8.)
    """
    check_choice("view", view, VIEWS)
    check_reduction(reduction)
    check_same_shape(student, teacher, "Maps")
    if student.ndim < 3:
        raise ShapeError(f"`student` must have at least one grid axis after (N, C), got shape {tuple(student.shape)}.")
    s, t = (feature.flatten(2) for feature in operands(student, teacher))
    if view == "frequency":
        if s.shape[2] == 1:
            raise ShapeError(
                f"`view='frequency'` needs maps of more than one position, got shape {tuple(student.shape)}: use "
                "larger images, or the spatial view alone."
            )
        s, t = (feature - feature.mean(dim=2, keepdim=True) for feature in (s, t))
    return reduce(2.0 * cosine_distance(s, t, reduction="none").sum(dim=1), reduction)


class ViewDistance(nn.Module):
    """Module form of `view_distance`.

    Args:
        view: ``"spatial"`` or ``"frequency"``.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``view`` or ``reduction`` is unknown.
    """

    def __init__(self, *, view: View = "spatial", reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("view", view, VIEWS)
        check_reduction(reduction)
        self.view: View = view
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return view_distance(student, teacher, view=self.view, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"view={self.view!r}, reduction={self.reduction!r}"

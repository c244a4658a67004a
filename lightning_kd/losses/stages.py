"""Losses over the stages of hierarchical networks: pyramids of one map, and one term per stage."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands
from lightning_kd.losses.feature import feature_mse

CONTEXT_LEVELS = (4, 2, 1)
PATCH_EMBEDDING_WEIGHTS = (0.1, 0.1, 0.5, 1.0)
_POOLS = {3: F.adaptive_avg_pool1d, 4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}


def hierarchical_context(student: Tensor, teacher: Tensor, *, levels: Sequence[int] = CONTEXT_LEVELS) -> Tensor:
    r"""Hierarchical context loss (HCL): mean squared error of two maps and of their average-pooled pyramids.

    .. math::
        L = \frac{\mathrm{MSE}(s, t) + \sum_l w_l \, \mathrm{MSE}(\mathrm{pool}_l\, s, \mathrm{pool}_l\, t)}
                 {1 + \sum_l w_l}, \qquad w_l = \tfrac12, \tfrac14, \tfrac18, \ldots

    where :math:`\mathrm{pool}_l` averages each grid axis adaptively to :math:`l` cells. A level is used only if it is
    smaller than the first grid axis, as in the published code, whatever the others; an unused level neither counts nor
    halves the next weight. Pooling is linear, so it is applied to the difference once. No gradient flows to
    ``teacher``.

    Args:
        student: Map of shape ``(N, C, H, W)``, frames ``(N, C, T)`` or volume ``(N, C, D, H, W)``, floating point.
        teacher: Map, same shape as ``student``.
        levels: Cells per grid axis of each pyramid level, from fine to coarse.

    Returns:
        Loss in squared units of the feature, non-negative, at least float32, shape ``()``.

    Raises:
        ShapeError: If the two maps differ in shape, are empty, or have not one to three grid axes.
        TypeError: If the maps are not floating point.
        ValueError: If a level is not at least 1.

    Source:
        Chen et al., "Distilling Knowledge via Knowledge Review", arXiv:2104.09044.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import hierarchical_context
        >>> hierarchical_context(torch.full((1, 2, 8, 8), 3.0), torch.zeros(1, 2, 8, 8))  # a constant offset c gives c²
        tensor(9.)
    """
    _check_levels(levels)
    check_same_shape(student, teacher, "Maps")
    if student.ndim not in _POOLS:
        raise ShapeError(f"`student` must have one to three grid axes after (N, C), got shape {tuple(student.shape)}.")
    s, t = operands(student, teacher)
    difference = s - t
    loss, weight, total = difference.square().mean(), 1.0, 1.0
    for level in levels:
        if level < difference.shape[2]:
            weight /= 2
            total += weight
            loss = loss + weight * _POOLS[difference.ndim](difference, level).square().mean()
    return loss / total


def patch_embedding_alignment(
    students: Sequence[Tensor], teachers: Sequence[Tensor], *, weights: Sequence[float] = PATCH_EMBEDDING_WEIGHTS
) -> Tensor:
    r"""Patch embedding alignment (PEA): weighted sum of mean squared errors over pairs of patch embeddings.

    .. math::
        L = \sum_m a_m \, \mathrm{MSE}(E^s_m, E^t_m)

    The student's embeddings come already projected to the teacher's widths. No gradient flows to ``teachers``.

    Args:
        students: One tensor per stage, from shallow to deep, floating point.
        teachers: One tensor per stage, each of its student's shape.
        weights: :math:`a_m > 0` per stage, dimensionless.

    Returns:
        Loss in squared units of the embeddings, non-negative, at least float32, shape ``()``.

    Raises:
        ShapeError: If the numbers of tensors and weights differ, or the two of a pair differ in shape or are empty.
        TypeError: If an embedding is not floating point.
        ValueError: If a weight is not a finite number above 0.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import patch_embedding_alignment
        >>> zeros, ones = [torch.zeros(1, 2, 3)] * 4, [torch.ones(1, 2, 3)] * 4
        >>> patch_embedding_alignment(zeros, ones)
        tensor(1.7000)
    """
    _check_weights(weights)
    if not len(students) == len(teachers) == len(weights):
        raise ShapeError(
            "`students`, `teachers` and `weights` must have one entry per stage, "
            f"got {len(students)}, {len(teachers)} and {len(weights)}."
        )
    pairs = zip(students, teachers, weights, strict=True)
    return torch.stack([weight * feature_mse(s, t) for s, t, weight in pairs]).sum()


class HierarchicalContext(nn.Module):
    """Module form of `hierarchical_context`.

    Args:
        levels: Cells per grid axis of each pyramid level, from fine to coarse.

    Raises:
        ValueError: If a level is not at least 1.
    """

    def __init__(self, *, levels: Sequence[int] = CONTEXT_LEVELS) -> None:
        super().__init__()
        _check_levels(levels)
        self.levels = tuple(levels)

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hierarchical_context(student, teacher, levels=self.levels)

    @override
    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class PatchEmbeddingAlignment(nn.Module):
    """Module form of `patch_embedding_alignment`.

    Args:
        weights: Weight above 0 per stage, dimensionless.

    Raises:
        ValueError: If a weight is not a finite number above 0.
    """

    def __init__(self, *, weights: Sequence[float] = PATCH_EMBEDDING_WEIGHTS) -> None:
        super().__init__()
        _check_weights(weights)
        self.weights = tuple(weights)

    @override
    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        return patch_embedding_alignment(students, teachers, weights=self.weights)

    @override
    def extra_repr(self) -> str:
        return f"weights={self.weights}"


def _check_levels(levels: Sequence[int]) -> None:
    if any(level < 1 for level in levels):
        raise ValueError(f"`levels` must be at least 1 cell each, got {tuple(levels)}.")


def _check_weights(weights: Sequence[float]) -> None:
    for index, weight in enumerate(weights):
        check_positive(f"weights[{index}]", weight)

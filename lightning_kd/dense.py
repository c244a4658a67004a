"""Labels of dense predictions."""

import torch
from torch import Tensor

from lightning_kd.errors import ShapeError


def labelled(labels: Tensor, grid: tuple[int, ...], ignore_index: int) -> Tensor:
    """Which positions of a grid have a label, read at the nearest pixel.

    Args:
        labels: Class index of each pixel, shape ``(N, H, W)``.
        grid: Height and width wanted.
        ignore_index: Class index that marks a pixel without a label.

    Returns:
        Boolean mask, shape ``(N, *grid)``.

    Raises:
        ShapeError: If the labels are not class indices of pixels.

    Example:
        >>> import torch
        >>> labelled(torch.tensor([[[1, 1, 255, 2], [1, 1, 2, 2]]]), (1, 2), 255)
        tensor([[[ True, False]]])
    """
    if labels.ndim != 3 or labels.is_floating_point():
        raise ShapeError(
            f"`labels` must be class indices of shape (N, H, W) to leave out pixels, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}: pass ignore_index=None, or labels= to KnowledgeDistillation."
        )
    return labels_on(labels, grid) != ignore_index


def labels_on(labels: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Labels on another grid: each cell reads the pixel at its upper left corner, as nearest interpolation does.

    Args:
        labels: Class indices ``(N, *pixels)`` or mixed labels ``(N, K, *pixels)``.
        grid: Sizes wanted, one per axis of the pixels; none for classification.

    Returns:
        The labels, on ``grid``.

    Raises:
        ShapeError: If the labels have no pixels where ``grid`` has cells.

    Example:
        >>> import torch
        >>> labels_on(torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8]]]), (1, 2))
        tensor([[[1, 3]]])
    """
    if labels.ndim <= len(grid):
        raise ShapeError(
            f"`labels` must give a class to each pixel, shape (N, H, W), got shape {tuple(labels.shape)} for "
            f"predictions on the grid {grid}: pass labels= to KnowledgeDistillation."
        )
    for axis, cells in enumerate(grid, start=-len(grid)):
        nearest = torch.arange(cells, device=labels.device) * labels.shape[axis] // cells
        labels = labels.index_select(axis, nearest)
    return labels


def classes_last(logits: Tensor) -> Tensor:
    """Class scores with classes on the last axis; those of dense predictions are on axis 1.

    Args:
        logits: Shape ``(N, C, H, W)``, or ``(..., C)`` with another number of axes.

    Returns:
        The same scores, shape ``(N, H, W, C)`` or ``(..., C)``.

    Example:
        >>> classes_last(torch.zeros(2, 19, 8, 4)).shape
        torch.Size([2, 8, 4, 19])
    """
    return logits.movedim(1, -1) if logits.ndim == 4 else logits

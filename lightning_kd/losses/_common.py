"""What every loss shares: checked and promoted operands, reductions."""

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError

Reduction = Literal["mean", "sum", "none"]


def check_reduction(reduction: str) -> None:
    """Raise `ValueError` unless ``reduction`` is a `Reduction`."""
    check_choice("reduction", reduction, ("mean", "sum", "none"))


def operands(student: Tensor, teacher: Tensor, suffix: str = "") -> tuple[Tensor, Tensor]:
    """Both tensors in one dtype of at least float32, the teacher cut from the graph.

    ``suffix`` completes the arguments' names in messages: ``"_logits"`` for ``student_logits``.
    """
    for name, tensor in ((f"student{suffix}", student), (f"teacher{suffix}", teacher)):
        if not tensor.is_floating_point():
            raise TypeError(f"`{name}` must be a floating-point tensor, got {tensor.dtype}.")
        if tensor.numel() == 0:
            raise ShapeError(f"`{name}` must not be empty, got shape {tuple(tensor.shape)}.")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def reduce(values: Tensor, reduction: Reduction, mask: Tensor | None = None) -> Tensor:
    """``values`` reduced over all axes, over those where ``mask`` is True if one is given.

    The others give 0 for ``"none"``. If nothing counts, the mean is a 0 that keeps the graph.
    """
    if mask is not None:
        values = values.masked_fill(~mask, 0.0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    return values.mean() if mask is None else values.sum() / mask.sum().clamp(min=1)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Context in which matrix products on ``tensor``'s device keep their operands' dtype."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)

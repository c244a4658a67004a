"""What losses on class scores share: operands with positions left out, divergences, and columns without the target."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands


def check_temperature(temperature: float | Tensor) -> None:
    """Raise unless ``temperature`` is a finite number above 0 or a floating-point tensor of shape ``()``.

    A tensor's value is not looked at: that would wait for the device.
    """
    if not isinstance(temperature, Tensor):
        check_positive("temperature", temperature)
    elif temperature.ndim or not temperature.is_floating_point():
        raise ShapeError(
            "`temperature` must be a number or a floating-point tensor of shape (), "
            f"got {temperature.dtype} of shape {tuple(temperature.shape)}."
        )


def score_operands(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both logits in one dtype of at least float32, the teacher's cut from the graph, zeros where ``mask`` is False.

    Scores that are left out reach no later operation, so that not even a NaN among them shows in value or gradient.
    """
    check_same_shape(student_logits, teacher_logits, "Logits")
    student, teacher = operands(student_logits, teacher_logits, "_logits")
    if mask is None:
        return student, teacher
    check_positions("mask", mask, student)
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be boolean, True where a position counts, got {mask.dtype}.")
    left_out = ~mask[..., None]
    return student.masked_fill(left_out, 0.0), teacher.masked_fill(left_out, 0.0)


def check_positions(name: str, tensor: Tensor, logits: Tensor) -> None:
    """Raise `ShapeError` unless ``tensor`` has one entry per leading position of ``logits``."""
    if tensor.shape != logits.shape[:-1]:
        raise ShapeError(
            f"`{name}` must have the logits' shape without classes, {tuple(logits.shape[:-1])}, "
            f"got {tuple(tensor.shape)}."
        )


def checked_target(target: Tensor, logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Class indices fit for `gather` on ``logits``, of shape ``(..., 1)``; those left out by ``mask`` read class 0.

    Values out of range raise: here on the CPU; elsewhere a look at them would wait for the device, and `gather` raises.
    """
    check_positions("target", target, logits)
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"`target` must hold class indices, got {target.dtype}: pass mixed labels' argmax.")
    if mask is not None:
        target = target.masked_fill(~mask, 0)
    classes = logits.shape[-1]
    if classes < 2:
        raise ShapeError(f"`student_logits` must tell at least 2 classes apart, got shape {tuple(logits.shape)}.")
    if target.device.type == "cpu" and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise ValueError(
            f"`target` must hold class indices from 0 to {classes - 1}, got {int(target.min())} to "
            f"{int(target.max())}: leave out positions without a class by mask= (objectives: ignore_index=)."
        )
    return target.long()[..., None]


def without_target(scores: Tensor, target: Tensor) -> Tensor:
    """``scores`` of shape ``(..., C)`` without the column of ``target`` ``(..., 1)``: shape ``(..., C - 1)``."""
    columns = torch.arange(scores.shape[-1] - 1, device=scores.device)
    return scores.gather(-1, columns + (columns >= target))


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the last axis, where classes masked with ``-inf`` get the lowest finite number.

    So mixtures of distributions that both mask a class have finite logarithms and gradients.
    """
    return F.log_softmax(logits, dim=-1).clamp(min=torch.finfo(logits.dtype).min)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL divergence from p to q over the last axis; classes without probability under p contribute nothing."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).masked_fill(log_p.isneginf(), 0.0).sum(dim=-1)

"""Batches that are spread over processes, read as one batch."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from typing_extensions import override


def gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the rows of every process, in the order of their ranks; with gradient.

    The backward pass adds up what all processes ask of a row. Where each computes the same loss from the joint batch
    and gradients are then averaged over the processes, as DDP does, the average is the gradient of that loss: the same
    as one process computes from the joint batch.

    Processes may hold different numbers of rows. To learn them, the device is waited for once.

    Args:
        tensor: Rows of this process, shape ``(n, ...)``; all but ``n`` must be the same everywhere.

    Returns:
        All rows, shape ``(sum of n, ...)``; ``tensor`` itself where training is not distributed.

    Example:
        >>> gather_rows(torch.ones(2, 3)).shape  # one process
        torch.Size([2, 3])
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    gathered: Tensor = _GatherRows.apply(tensor)
    return gathered


def count_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """The sum of a count over all processes, without gradient, and their number.

    A loss that every process divides by the sum, and multiplies by the number, is averaged by DDP to that of the joint
    batch, also where processes hold different counts.

    Args:
        count: What this process counted, shape ``()``.

    Returns:
        The sum, floating point, shape ``()``, and the number of processes.

    Example:
        >>> count_over_ranks(torch.tensor(3))  # one process
        (tensor(3.), 1)
    """
    total = count.detach().float()
    if not dist.is_available() or not dist.is_initialized():
        return total, 1
    dist.all_reduce(total)
    return total, dist.get_world_size()


def joint_batch(student: Tensor, teacher: Tensor, *, gather: bool) -> tuple[Tensor, Tensor]:
    """Both features of the joint batch of all processes if ``gather``, else as they are.

    Args:
        student: Features of this process, shape ``(n, ...)``.
        teacher: The teacher's, shape ``(n, ...)``.
        gather: Whether to gather.

    Returns:
        Both features.
    """
    return (gather_rows(student), gather_rows(teacher)) if gather else (student, teacher)


class _GatherRows(Function):
    @staticmethod
    @override
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        lengths = _lengths(tensor)
        most, rank = max(lengths), dist.get_rank()
        ctx.rows = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
        padding = [0, 0] * (tensor.ndim - 1) + [0, most - len(tensor)]
        padded = F.pad(tensor.detach(), padding).contiguous()
        everyone = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(everyone, padded)
        return torch.cat([rows[:length] for rows, length in zip(everyone, lengths, strict=True)])

    @staticmethod
    @override
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        own: Tensor = total[ctx.rows]
        return own


def _lengths(tensor: Tensor) -> list[int]:
    own = torch.tensor([len(tensor)], device=tensor.device)
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    return [int(length) for length in torch.cat(everyone).tolist()]

"""What relation losses share: rows of one length, pairwise products, and work in chunks of bounded memory."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands

# Floats that a chunk's largest intermediates may hold, 16 MiB of float32; a single row may exceed it. More is slower on
# CPUs, which must be given the pages anew each time.
CHUNK_ELEMENTS = 2**22


def paired_rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both features as rows ``(N, d)`` of the same samples, promoted, the teacher cut from the graph."""
    check_samples(student, teacher)
    s, t = operands(student, teacher)
    return s.flatten(1), t.flatten(1)


def check_samples(student: Tensor, teacher: Tensor) -> None:
    """Raise `ShapeError` unless both features have shape ``(N, ...)`` with the same number of samples."""
    if min(student.ndim, teacher.ndim) < 2 or len(student) != len(teacher):
        raise ShapeError(
            "`student` and `teacher` must have shape (samples, features, ...) with the same samples, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )


def unit(rows: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """``rows`` over their lengths plus ``epsilon``; rows of length zero stay zero and get no gradient."""
    squares = rows.square().sum(dim=-1, keepdim=True)
    degenerate = squares == 0
    lengths = squares.masked_fill(degenerate, 1.0).sqrt()
    return (rows / (lengths + epsilon)).masked_fill(degenerate, 0.0)


def gram_directions(rows: Tensor) -> Tensor:
    """Gram matrices ``(..., n, n)`` of ``rows`` ``(..., n, d)``, each of their rows over its length."""
    return unit(rows @ rows.mT)


def in_chunks(
    function: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor, *, elements: int
) -> Tensor:
    """``function(student, teacher)``, a value per row, on as many rows at a time as memory is meant for.

    More than one chunk is computed again in the backward pass instead of being kept.

    Args:
        function: Maps rows of both tensors to one value per row, each row by itself.
        student: Rows ``(n, ...)``.
        teacher: Rows ``(n, ...)``.
        elements: Numbers that ``function`` holds per row.

    Returns:
        Values, shape ``(n,)``.
    """
    rows = max(1, CHUNK_ELEMENTS // elements)
    if rows >= len(student):
        return function(student, teacher)
    chunks = zip(torch.split(student, rows), torch.split(teacher, rows), strict=True)
    values = [checkpoint(function, s, t, use_reentrant=False, preserve_rng_state=False) for s, t in chunks]
    return torch.cat(values)

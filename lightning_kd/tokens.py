"""Tokens of student and teacher side by side: token by token where they correspond, on a common grid where not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd.layout import Layout, common_grid


def common_tokens(
    student: Tensor, teacher: Tensor, student_layout: Layout, teacher_layout: Layout
) -> tuple[Tensor, Tensor]:
    """Bring two features to equal positions, channels last.

    Sequences of equal length with equally many prefix tokens are taken as they are, class and register tokens
    included. Anything else is read as a map without prefix tokens and averaged to the smaller grid.

    Args:
        student: Feature as tapped.
        teacher: Feature as tapped.
        student_layout: Meaning of the student's axes.
        teacher_layout: Meaning of the teacher's axes.

    Returns:
        Both features, shapes ``(N, L, D_s)`` and ``(N, L, D_t)``, or ``(N, *grid, D)`` on the common grid.

    Raises:
        LayoutError: If one side is a map and the other a sequence of frames, or a rank does not fit the axes.

    Example:
        >>> import torch
        >>> layouts = Layout("NLD", prefix_tokens=1), Layout("NLD", prefix_tokens=1)
        >>> [tuple(x.shape) for x in common_tokens(torch.zeros(2, 17, 8), torch.zeros(2, 17, 12), *layouts)]
        [(2, 17, 8), (2, 17, 12)]
        >>> [tuple(x.shape) for x in common_tokens(torch.zeros(2, 17, 8), torch.zeros(2, 65, 12), *layouts)]
        [(2, 4, 4, 8), (2, 4, 4, 12)]
    """
    sequences = all(layout.axes in ("NLD", "NTD") for layout in (student_layout, teacher_layout))
    alike = student_layout.prefix_tokens == teacher_layout.prefix_tokens and student.shape[:2] == teacher.shape[:2]
    if sequences and alike:
        return student, teacher
    maps = common_grid(student_layout.channels_first(student), teacher_layout.channels_first(teacher))
    return maps[0].movedim(1, -1), maps[1].movedim(1, -1)


def distinct_tokens(tokens: Tensor, keep: int) -> Tensor:
    """Indices of the tokens of each sample that resemble the others least: the others are redundant.

    The redundancy of a token is its mean cosine with all tokens of its sample, at a cost linear in their number.

    Args:
        tokens: Shape ``(N, L, D)``.
        keep: How many tokens to keep of each sample, at most ``L``.

    Returns:
        Indices in ascending order, shape ``(N, keep)``; they have no gradient.

    Example:
        >>> import torch
        >>> tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]])
        >>> distinct_tokens(tokens, 2)
        tensor([[0, 2]])
    """
    directions = F.normalize(tokens.detach().float(), dim=-1)
    redundancy = (directions * directions.mean(dim=1, keepdim=True)).sum(dim=-1)
    return redundancy.topk(keep, dim=1, largest=False).indices.sort(dim=1).values


def take_tokens(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens at ``indices`` of shape ``(N, K)``: ``(N, L, D)`` to ``(N, K, D)``."""
    return torch.take_along_dim(tokens, indices[..., None], dim=1)

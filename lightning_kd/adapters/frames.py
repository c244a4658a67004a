"""Brings the frames of a student and a teacher together: rates, and heads that predict a teacher's hidden states."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError

Resampling = Literal["linear", "pool"]


def align_frames(
    student: Tensor,
    teacher: Tensor,
    student_mask: Tensor | None = None,
    teacher_mask: Tensor | None = None,
    *,
    method: Resampling = "linear",
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring two sequences of frames to the student's rate.

    Sequences that differ by at most one frame have one rate: both are cropped to the shorter, and valid is what both
    have. Else the teacher is resampled, each sample from its own valid frames to the student's, so that padding changes
    nothing; valid is what the student has. The student is never resampled.

    Args:
        student: Shape ``(N, T_s, D_s)``.
        teacher: Shape ``(N, T_t, D_t)``.
        student_mask: Valid frames, shape ``(N, T_s)``, boolean, with the padding on the right; ``None`` for all.
        teacher_mask: Likewise, shape ``(N, T_t)``.
        method: ``"linear"`` interpolates between frame centres, ``"pool"`` averages the frames that a frame covers.

    Returns:
        Student, teacher, and the mask of both, ``None`` for all.

    Raises:
        ShapeError: If a sequence has not three axes, or the batches differ.
        ValueError: If ``method`` is unknown.

    Example:
        >>> student, teacher = torch.zeros(1, 2, 8), torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
        >>> align_frames(student, teacher, method="pool")[1].flatten()
        tensor([0.5000, 2.5000])
    """
    check_choice("method", method, ("linear", "pool"))
    if student.ndim != 3 or teacher.ndim != 3 or len(student) != len(teacher):
        raise ShapeError(
            "frames of student and teacher must have shape (N, T, D) with one N, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    if abs(student.shape[1] - teacher.shape[1]) <= 1:
        frames = min(student.shape[1], teacher.shape[1])
        masks = [mask[:, :frames] for mask in (student_mask, teacher_mask) if mask is not None]
        valid = None if not masks else masks[0] & masks[-1]
        return student[:, :frames], teacher[:, :frames], valid
    resample = _interpolated if method == "linear" else _averaged
    resampled = resample(teacher, _lengths(teacher, teacher_mask), _lengths(student, student_mask), student.shape[1])
    return student, resampled, student_mask


def _lengths(frames: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full((len(frames), 1), frames.shape[1], device=frames.device)
    return mask.sum(dim=1, keepdim=True)


def _interpolated(teacher: Tensor, have: Tensor, want: Tensor, frames: int) -> Tensor:
    last = (have - 1).clamp(min=0)
    centres = (torch.arange(frames, device=teacher.device) + 0.5) * have / want.clamp(min=1) - 0.5
    positions = centres.clamp(min=0.0).minimum(last.to(centres.dtype))
    before = positions.floor().long()
    share = (positions - before).to(teacher.dtype)[..., None]
    return torch.lerp(_picked(teacher, before), _picked(teacher, (before + 1).minimum(last)), share)


def _averaged(teacher: Tensor, have: Tensor, want: Tensor, frames: int) -> Tensor:
    index = torch.arange(frames, device=teacher.device)
    start = torch.div(index * have, want.clamp(min=1), rounding_mode="floor").minimum(have)
    end = -torch.div(-(index + 1) * have, want.clamp(min=1), rounding_mode="floor")
    sums = F.pad(teacher.to(torch.promote_types(teacher.dtype, torch.float32)).cumsum(dim=1), (0, 0, 1, 0))
    end = end.minimum(have)
    means = (_picked(sums, end) - _picked(sums, start)) / (end - start).clamp(min=1)[..., None]
    return means.to(teacher.dtype)


def _picked(sequence: Tensor, index: Tensor) -> Tensor:
    return sequence.gather(1, index[..., None].expand(-1, -1, sequence.shape[2]))


class SplitHeads(nn.Module):
    """Predicts several hidden states of a teacher from one of the student, as DistilHuBERT does.

    A linear layer to as many groups of channels as there are targets, GELU, and a linear layer for each group alone.

    Args:
        student: Width of the student's hidden state.
        teacher: Width of the teacher's.
        targets: Number of hidden states to predict.

    Source:
        Chang et al., "DistilHuBERT", arXiv:2110.01900; the groups' weights and biases start uniform in
        ``1 / sqrt(teacher)``, as in s3prl.

    Example:
        >>> SplitHeads(4, 6, targets=3)(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 5, 3, 6])
    """

    def __init__(self, student: int, teacher: int, *, targets: int) -> None:
        super().__init__()
        self.targets = targets
        self.hidden = nn.Linear(student, teacher * targets)
        bound = teacher**-0.5
        self.weight = nn.Parameter(torch.empty(targets, teacher, teacher).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(targets, teacher).uniform_(-bound, bound))

    @override
    def forward(self, hidden: Tensor) -> Tensor:
        """Return predictions of shape ``(N, T, targets, teacher)`` for frames of shape ``(N, T, student)``."""
        groups = F.gelu(self.hidden(hidden)).reshape(*hidden.shape[:-1], self.targets, -1)
        return torch.einsum("...nd,nde->...ne", groups, self.weight) + self.bias


class UpsamplingHead(nn.Module):
    """Predicts a hidden state of a teacher from a student of a whole fraction of its rate, as FitHuBERT does.

    Args:
        student: Width of the student's hidden state.
        teacher: Width of the teacher's.
        factor: Frames of the teacher per frame of the student; 1 leaves a linear layer.

    Source:
        Lee et al., "FitHuBERT: Going Thinner and Deeper for Knowledge Distillation of Speech Self-Supervised Learning",
        arXiv:2207.00555.

    Example:
        >>> UpsamplingHead(4, 6, factor=2)(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 10, 6])
    """

    def __init__(self, student: int, teacher: int, *, factor: int = 1) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose1d(student, student, factor, stride=factor) if factor > 1 else nn.Identity()
        self.project = nn.Linear(student, teacher)

    @override
    def forward(self, hidden: Tensor) -> Tensor:
        """Return frames of shape ``(N, T * factor, teacher)`` for those of shape ``(N, T, student)``."""
        predicted: Tensor = self.project(self.upsample(hidden.transpose(1, 2)).transpose(1, 2))
        return predicted

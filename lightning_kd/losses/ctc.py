"""Losses between two CTC networks, frame by frame."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.decoding import check_blank
from lightning_kd.losses._scores import score_operands
from lightning_kd.losses.frame_selection import FrameSelection, select_frames, spiking_frames
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction, reduce_frames
from lightning_kd.losses.logit import soft_target_kl


def frame_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    temperature: float = 2.0,
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""Temperature-scaled KL divergence of the class distributions, averaged over frames.

    .. math::
        L = \frac{T^2}{|S|} \sum_{t \in S} \mathrm{KL}(p_t \,\|\, q_t)

    It is `soft_target_kl` with the reductions of frames: `select_frames` says which frames :math:`S` of a CTC teacher
    are worth distilling.

    Args:
        student_logits: Unnormalised scores, shape ``(N, T, V)``, floating point.
        teacher_logits: Unnormalised scores, same shape.
        mask: True where a frame counts, boolean ``(N, T)``; ``None`` counts all.
        temperature: Softmax temperature above 0, dimensionless.
        reduction: ``"frame"``: mean over frames; ``"utterance"``: mean over the frames of each utterance, then over
            utterances.
        all_reduce: Whether frames of all processes are counted.

    Returns:
        Loss in nats, not negative, shape ``()``. Where nothing counts it is a 0 that keeps the graph.

    Raises:
        ShapeError: If shapes differ.
        ValueError: If ``temperature`` is not above 0 or ``reduction`` is unknown.

    Source:
        Hilmes, Rossenbach and Schlueter, "Analyzing the Importance of Blank for CTC-Based Knowledge Distillation",
        Interspeech 2025, at temperature 2.

    Example:
        >>> import torch
        >>> frame_kl(torch.zeros(1, 2, 2), torch.tensor([[[3.0, 1.0], [1.0, 1.0]]]).log(), temperature=1.0)
        tensor(0.0654)
    """
    check_frame_reduction(reduction)
    per_frame = soft_target_kl(student_logits, teacher_logits, temperature=temperature, mask=mask, reduction="none")
    return reduce_frames(per_frame, mask, reduction, all_reduce=all_reduce)


def guided_ctc(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor | None = None,
    *,
    blank: int,
    reduction: FrameReduction = "frame",
) -> Tensor:
    r"""Makes a student say the teacher's labels at the frames where the teacher says them.

    .. math::
        L = -\frac{1}{T} \sum_t n_t \, q_t(\hat k_t), \qquad \hat k_t = \arg\max_k p_t(k), \quad
        n_t = [\hat k_t \neq \mathrm{blank}]

    It is a probability, not its logarithm: a term for use beside a CTC loss, which aligns the spikes of several
    networks so that frame-level losses between them make sense.

    Args:
        student_logits: Unnormalised scores, shape ``(N, T, V)``, floating point.
        teacher_logits: Unnormalised scores, same shape.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``; ``None`` counts all.
        blank: Index of the blank.
        reduction: See `frame_kl`.

    Returns:
        Loss from -1 to 0, dimensionless, shape ``()``.

    Raises:
        ShapeError: If shapes differ or there is no class ``blank``.
        ValueError: If ``reduction`` is unknown.

    Source:
        Kurata and Audhkhasi, "Guiding CTC Posterior Spike Timings for Improved Posterior Fusion and Knowledge
        Distillation", Interspeech 2019, from memory.

    Example:
        >>> import torch
        >>> guided_ctc(torch.zeros(1, 2, 2), torch.tensor([[[3.0, 1.0], [1.0, 3.0]]]), blank=1)
        tensor(-0.2500)
    """
    check_frame_reduction(reduction)
    check_blank(teacher_logits, blank)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    spikes = spiking_frames(teacher, mask, blank=blank)
    said = F.softmax(student, dim=-1).gather(-1, teacher.argmax(dim=-1, keepdim=True))[..., 0]
    return reduce_frames(-said * spikes, mask, reduction)


class FrameKL(nn.Module):
    """Module form of `frame_kl`.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        reduction: ``"frame"`` or ``"utterance"``.

    Raises:
        ValueError: If ``temperature`` is not above 0 or ``reduction`` is unknown.
    """

    def __init__(self, *, temperature: float = 2.0, reduction: FrameReduction = "frame") -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_frame_reduction(reduction)
        self.temperature = temperature
        self.reduction: FrameReduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return frame_kl(student_logits, teacher_logits, mask, temperature=self.temperature, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"


class CTCFrameKL(nn.Module):
    """`frame_kl` over the frames that a rule selects by the teacher.

    Args:
        blank: Index of the blank.
        selection: The rule; ``None`` is `KeepAround` with one frame on each side.
        temperature: Softmax temperature above 0, dimensionless.
        reduction: ``"frame"`` or ``"utterance"``.

    Raises:
        ValueError: If ``temperature`` is not above 0 or ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> loss = CTCFrameKL(blank=1)
        >>> loss(torch.zeros(1, 4, 2), torch.tensor([[[0.0, 9.0], [9.0, 0.0], [0.0, 9.0], [0.0, 9.0]]])).shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        blank: int,
        selection: FrameSelection | None = None,
        temperature: float = 2.0,
        reduction: FrameReduction = "frame",
    ) -> None:
        super().__init__()
        self.blank = blank
        self.selection = selection
        self.loss = FrameKL(temperature=temperature, reduction=reduction)

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        selected = select_frames(teacher_logits, mask, blank=self.blank, selection=self.selection)
        loss: Tensor = self.loss(student_logits, teacher_logits, selected)
        return loss

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, selection={self.selection}"


class GuidedCTC(nn.Module):
    """Module form of `guided_ctc`.

    Args:
        blank: Index of the blank.
        reduction: ``"frame"`` or ``"utterance"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, blank: int, reduction: FrameReduction = "frame") -> None:
        super().__init__()
        check_frame_reduction(reduction)
        self.blank = blank
        self.reduction: FrameReduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return guided_ctc(student_logits, teacher_logits, mask, blank=self.blank, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"blank={self.blank}, reduction={self.reduction!r}"

"""Losses between the frames of two speech encoders, ``(N, T, D)``, over the frames that are not padding."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_same_shape
from lightning_kd.distributed import count_over_ranks
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands

FrameReduction = Literal["frame", "utterance"]
FrameCosineKind = Literal["log_sigmoid", "negative"]
KINDS: tuple[FrameCosineKind, ...] = get_args(FrameCosineKind)
SHORTEST = 1e-8


def check_frame_reduction(reduction: str) -> None:
    """Raise `ValueError` unless ``reduction`` is a `FrameReduction`."""
    check_choice("reduction", reduction, ("frame", "utterance"))


def reduce_frames(
    values: Tensor, mask: Tensor | None = None, reduction: FrameReduction = "frame", *, all_reduce: bool = False
) -> Tensor:
    r"""Mean of one value per frame over the frames that are valid.

    .. math::
        \text{frame: } \frac{\sum_{n,t} m_{nt} v_{nt}}{\max(\sum_{n,t} m_{nt}, 1)}, \qquad
        \text{utterance: } \frac{1}{N'} \sum_n \frac{\sum_t m_{nt} v_{nt}}{\max(\sum_t m_{nt}, 1)}

    with :math:`N'` the utterances that have a valid frame, at least 1. The two differ as soon as lengths do. What is
    masked is removed, not multiplied by 0: it may be infinite or NaN, if its gradient is finite (which a loss makes
    sure of by masking its inputs).

    Args:
        values: One value per frame, shape ``(N, T)``, floating point.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.
        reduction: ``"frame"``: every frame counts the same; ``"utterance"``: every utterance does.
        all_reduce: Whether the frames, or utterances, of all processes are counted, so that the mean over processes
            that DDP takes is the mean over the joint batch; costs one exchange of a number.

    Returns:
        Shape ``()``; a zero that keeps the graph if nothing is valid.

    Raises:
        ShapeError: If ``values`` has not two axes, or ``mask`` another shape.
        TypeError: If ``mask`` is not boolean.
        ValueError: If ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import reduce_frames
        >>> values = torch.tensor([[1.0, 2.0, 3.0], [8.0, float("nan"), float("nan")]])
        >>> mask = torch.tensor([[True, True, True], [True, False, False]])
        >>> reduce_frames(values, mask), reduce_frames(values, mask, "utterance")  # 14 / 4, (2 + 8) / 2
        (tensor(3.5000), tensor(5.))
    """
    check_frame_reduction(reduction)
    if values.ndim != 2:
        raise ShapeError(f"`values` must have shape (N, T), one per frame, got {tuple(values.shape)}.")
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    check_mask(mask, values)
    values = values.masked_fill(~mask, 0.0)
    counts = mask.sum(dim=1)
    if reduction == "utterance":
        values, counts = values.sum(dim=1) / counts.clamp(min=1), counts > 0
    count = counts.sum()
    if not all_reduce:
        return values.sum() / count.clamp(min=1)
    total, processes = count_over_ranks(count)
    return values.sum() * processes / total.clamp(min=1)


def frame_l1(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""Mean absolute difference of the features of a frame, over the valid frames.

    .. math::
        \ell_{nt} = \frac{1}{D} \sum_d |s_{ntd} - t_{ntd}|

    Args:
        student: Features, shape ``(N, T, D)``, floating point.
        teacher: Features, same shape; no gradient flows to them.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all. The others may hold anything.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.
        all_reduce: Whether the frames of all processes are counted, see `reduce_frames`.

    Returns:
        Loss in units of the features, non-negative, at least float32, shape ``()``; 0 if no frame is valid.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or ``mask`` does not fit.
        TypeError: If the features are not floating point, or ``mask`` not boolean.
        ValueError: If ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import frame_l1
        >>> student, teacher = torch.tensor([[[1.0, 0.0, 2.0]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
        >>> frame_l1(student, teacher)  # (0 + 1 + 2) / 3
        tensor(1.)
    """
    s, t = masked_operands(student, teacher, mask)
    return reduce_frames((s - t).abs().mean(dim=2), mask, reduction, all_reduce=all_reduce)


def frame_mse(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""Mean squared difference of the features of a frame, over the valid frames.

    .. math::
        \ell_{nt} = \frac{1}{D} \sum_d (s_{ntd} - t_{ntd})^2

    Args:
        student: Features, shape ``(N, T, D)``, floating point.
        teacher: Features, same shape; no gradient flows to them.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all. The others may hold anything.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.
        all_reduce: Whether the frames of all processes are counted, see `reduce_frames`.

    Returns:
        Loss in squared units of the features, non-negative, at least float32, shape ``()``; 0 if no frame is valid.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or ``mask`` does not fit.
        TypeError: If the features are not floating point, or ``mask`` not boolean.
        ValueError: If ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import frame_mse
        >>> frame_mse(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 2.0]]]))  # (0 + 4) / 2
        tensor(2.)
    """
    s, t = masked_operands(student, teacher, mask)
    return reduce_frames((s - t).square().mean(dim=2), mask, reduction, all_reduce=all_reduce)


def frame_cosine(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    kind: FrameCosineKind = "log_sigmoid",
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""How little the features of a frame point where the teacher's do, over the valid frames.

    .. math::
        \text{log sigmoid: } \ell = -\log \sigma(\cos(s, t)) = \log(1 + e^{-\cos(s, t)}), \qquad
        \text{negative: } \ell = -\cos(s, t)

    Lengths below 1e-8 count as 1e-8. The first lies in [0.3133, 1.3133] and never reaches 0, as DistilHuBERT has it;
    the second in [-1, 1], as DPHuBERT has it.

    Args:
        student: Features, shape ``(N, T, D)``, floating point.
        teacher: Features, same shape; no gradient flows to them.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all. The others may hold anything.
        kind: ``"log_sigmoid"`` or ``"negative"``.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.
        all_reduce: Whether the frames of all processes are counted, see `reduce_frames`.

    Returns:
        Loss in nats or dimensionless, at least float32, shape ``()``; 0 if no frame is valid.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or ``mask`` does not fit.
        TypeError: If the features are not floating point, or ``mask`` not boolean.
        ValueError: If ``kind`` or ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import frame_cosine
        >>> student, teacher = torch.tensor([[[0.0, 3.0, 4.0]]]), torch.tensor([[[0.0, 4.0, 3.0]]])
        >>> frame_cosine(student, teacher, kind="negative")  # -(12 + 12) / 25
        tensor(-0.9600)
    """
    check_choice("kind", kind, KINDS)
    s, t = (F.normalize(x, dim=2, eps=SHORTEST) for x in masked_operands(student, teacher, mask))
    cosine = (s * t).sum(dim=2)
    values = F.softplus(-cosine) if kind == "log_sigmoid" else -cosine
    return reduce_frames(values, mask, reduction, all_reduce=all_reduce)


def mean_of_frames(frames: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the frames of each utterance that count; zero where none does.

    Args:
        frames: Shape ``(N, T, D)``.
        mask: True where a frame counts, boolean of shape ``(N, T)``; ``None`` counts all.

    Returns:
        Shape ``(N, D)``. What is in the other frames, not-a-number included, reaches neither it nor the gradient.

    Example:
        >>> import torch
        >>> from lightning_kd.losses.frames import mean_of_frames
        >>> frames = torch.tensor([[[1.0], [3.0], [torch.nan]]])
        >>> mean_of_frames(frames, torch.tensor([[True, True, False]]))
        tensor([[2.]])
    """
    if mask is None:
        return frames.mean(1)
    wide = torch.promote_types(frames.dtype, torch.float32)
    total = torch.where(mask.unsqueeze(-1), frames, 0.0).sum(1, dtype=wide)
    return (total / mask.sum(1, keepdim=True).clamp(min=1)).to(frames.dtype)


def masked_operands(student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both features checked and promoted, with zeros in place of what is masked."""
    check_same_shape(student, teacher, "Frames")
    if student.ndim != 3:
        raise ShapeError(f"frames must have shape (N, T, D), got {tuple(student.shape)}.")
    s, t = operands(student, teacher)
    if mask is None:
        return s, t
    check_mask(mask, s[..., 0])
    return torch.where(mask[..., None], s, 0.0), torch.where(mask[..., None], t, 0.0)


def check_mask(mask: Tensor, values: Tensor, name: str = "mask") -> None:
    """Raise unless ``mask`` is boolean and has the shape ``(N, T)`` of ``values``."""
    if mask.dtype != torch.bool:
        raise TypeError(f"`{name}` must be boolean, True for valid frames, got {mask.dtype}.")
    if mask.shape != values.shape:
        raise ShapeError(f"`{name}` must have shape (N, T) = {tuple(values.shape)}, got {tuple(mask.shape)}.")


class FrameLoss(nn.Module):
    """What the modules of this family store.

    Args:
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: FrameReduction = "frame", all_reduce: bool = False) -> None:
        super().__init__()
        check_frame_reduction(reduction)
        self.reduction: FrameReduction = reduction
        self.all_reduce = all_reduce

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, all_reduce={self.all_reduce}"


class FrameL1(FrameLoss):
    """Module form of `frame_l1`.

    Args:
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    @override
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return frame_l1(student, teacher, mask, reduction=self.reduction, all_reduce=self.all_reduce)


class FrameMSE(FrameLoss):
    """Module form of `frame_mse`.

    Args:
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    @override
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return frame_mse(student, teacher, mask, reduction=self.reduction, all_reduce=self.all_reduce)


class FrameCosine(FrameLoss):
    """Module form of `frame_cosine`.

    Args:
        kind: ``"log_sigmoid"`` or ``"negative"``.
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If ``kind`` or ``reduction`` is unknown.
    """

    def __init__(
        self,
        *,
        kind: FrameCosineKind = "log_sigmoid",
        reduction: FrameReduction = "frame",
        all_reduce: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, all_reduce=all_reduce)
        check_choice("kind", kind, KINDS)
        self.kind: FrameCosineKind = kind

    @override
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return frame_cosine(
            student, teacher, mask, kind=self.kind, reduction=self.reduction, all_reduce=self.all_reduce
        )

    @override
    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, {super().extra_repr()}"

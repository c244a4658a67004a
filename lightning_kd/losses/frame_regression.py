"""Losses between hidden states of speech encoders, made of those in `frames`."""

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice, check_not_negative, check_same_shape
from lightning_kd.losses.frames import (
    KINDS,
    FrameCosineKind,
    FrameLoss,
    FrameReduction,
    check_mask,
    frame_cosine,
    frame_l1,
    frame_mse,
)


def frame_regression(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    *,
    cosine_weight: float = 1.0,
    kind: FrameCosineKind = "log_sigmoid",
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""Absolute difference plus cosine: how DistilHuBERT and DPHuBERT compare a prediction with a hidden state.

    .. math::
        \ell = \frac{1}{D} \lVert s - t \rVert_1 + \lambda \, c(s, t)

    with :math:`c` as in `frame_cosine`.

    Args:
        student: Features, shape ``(N, T, D)``, floating point.
        teacher: Features, same shape; no gradient flows to them.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all. The others may hold anything.
        cosine_weight: :math:`\lambda \ge 0`.
        kind: ``"log_sigmoid"`` (DistilHuBERT) or ``"negative"`` (DPHuBERT).
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.
        all_reduce: Whether the frames of all processes are counted, see `reduce_frames`.

    Returns:
        Loss, at least float32, shape ``()``; 0 if no frame is valid.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or ``mask`` does not fit.
        TypeError: If the features are not floating point, or ``mask`` not boolean.
        ValueError: If an option is out of range.

    Source:
        Chang et al., "DistilHuBERT: Speech Representation Learning by Layer-wise Distillation of Hidden-unit BERT",
        arXiv:2110.01900; Peng et al., "DPHuBERT", arXiv:2305.17651.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import frame_regression
        >>> frame_regression(torch.ones(1, 1, 4), torch.ones(1, 1, 4))  # log(1 + 1/e) at equality
        tensor(0.3133)
    """
    check_not_negative("cosine_weight", cosine_weight)
    difference = frame_l1(student, teacher, mask, reduction=reduction, all_reduce=all_reduce)
    cosine = frame_cosine(student, teacher, mask, kind=kind, reduction=reduction, all_reduce=all_reduce)
    return difference + cosine_weight * cosine


def masked_span_mse(
    student: Tensor,
    clean: Tensor,
    masked: Tensor,
    spans: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: FrameReduction = "frame",
    all_reduce: bool = False,
) -> Tensor:
    r"""Squared difference to the clean teacher where the input was hidden, to the masked teacher elsewhere.

    .. math::
        \ell_{nt} = \frac{1}{D} \lVert s_{nt} - y_{nt} \rVert^2, \qquad
        y_{nt} = \begin{cases} \mathrm{clean}_{nt} & \text{hidden} \\ \mathrm{masked}_{nt} & \text{else} \end{cases}

    Args:
        student: Features of the input with hidden spans, shape ``(N, T, D)``, floating point.
        clean: The teacher's features of the whole input, same shape; no gradient flows to them.
        masked: The teacher's features of the input with the same spans hidden, same shape, likewise.
        spans: Which frames were hidden, shape ``(N, T)``, boolean.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`.
        all_reduce: Whether the frames of all processes are counted, see `reduce_frames`.

    Returns:
        Loss in squared units of the features, non-negative, at least float32, shape ``()``; 0 if no frame is valid.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or a mask does not fit.
        TypeError: If the features are not floating point, or a mask not boolean.
        ValueError: If ``reduction`` is unknown.

    Source:
        Jang et al., "Recycle-and-Distill: Universal Compression Strategy for Transformer-based Speech SSL Models"
        (ARMHuBERT), arXiv:2305.11685. Its code divides by all frames, padding included: leave ``mask`` out for that.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import masked_span_mse
        >>> student, clean, masked = torch.tensor([[[[1.0], [2.0]]], [[[3.0], [9.0]]], [[[9.0], [3.0]]]])
        >>> masked_span_mse(student, clean, masked, torch.tensor([[True, False]]))  # (4 + 1) / 2
        tensor(2.5000)
    """
    check_same_shape(clean, masked, "Clean and masked features of the teacher, compared as those")
    check_mask(spans, clean[..., 0], name="spans")
    teacher = torch.where(spans[..., None], clean, masked)
    return frame_mse(student, teacher, mask, reduction=reduction, all_reduce=all_reduce)


class FrameRegression(FrameLoss):
    """Module form of `frame_regression`.

    Args:
        cosine_weight: Factor of the cosine, at least 0.
        kind: ``"log_sigmoid"`` or ``"negative"``.
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If an option is out of range.
    """

    def __init__(
        self,
        *,
        cosine_weight: float = 1.0,
        kind: FrameCosineKind = "log_sigmoid",
        reduction: FrameReduction = "frame",
        all_reduce: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, all_reduce=all_reduce)
        check_not_negative("cosine_weight", cosine_weight)
        check_choice("kind", kind, KINDS)
        self.cosine_weight = cosine_weight
        self.kind: FrameCosineKind = kind

    @override
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        return frame_regression(
            student,
            teacher,
            mask,
            cosine_weight=self.cosine_weight,
            kind=self.kind,
            reduction=self.reduction,
            all_reduce=self.all_reduce,
        )

    @override
    def extra_repr(self) -> str:
        return f"cosine_weight={self.cosine_weight}, kind={self.kind!r}, {super().extra_repr()}"


class MaskedSpanMSE(FrameLoss):
    """Module form of `masked_span_mse`.

    Args:
        reduction: Mean over ``"frame"`` or ``"utterance"``.
        all_reduce: Whether the frames of all processes are counted.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    @override
    def forward(
        self, student: Tensor, clean: Tensor, masked: Tensor, spans: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return masked_span_mse(
            student, clean, masked, spans, mask, reduction=self.reduction, all_reduce=self.all_reduce
        )

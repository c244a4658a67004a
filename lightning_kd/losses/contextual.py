"""Regression of a teacher's contextual representation where the student's input was hidden: LightHuBERT's loss."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError
from lightning_kd.losses.feature import normalize_channels
from lightning_kd.losses.frames import FrameReduction, check_frame_reduction, masked_operands, reduce_frames

HiddenFrameDistance = Literal["mse", "l1", "smooth_l1"]
DISTANCES: tuple[HiddenFrameDistance, ...] = ("mse", "l1", "smooth_l1")


def hidden_frame_regression(
    student: Tensor,
    teacher: Tensor,
    hidden: Tensor,
    mask: Tensor | None = None,
    *,
    distance: HiddenFrameDistance = "mse",
    reduction: FrameReduction = "frame",
) -> Tensor:
    r"""Distance to the teacher at the frames that were hidden from the student, and at no others.

    .. math::
        L = \frac{1}{|M|} \sum_{t \in M} \frac{1}{D} \sum_d \delta(s_{td} - t_{td})

    with :math:`M` the valid frames that were hidden and :math:`\delta` the square, the magnitude, or smooth L1 with its
    corner at 1.

    Args:
        student: Predictions from an input with hidden spans, shape ``(N, T, D)``, floating point.
        teacher: The teacher's features of the whole input, same shape; no gradient flows to them.
        hidden: Which frames were hidden, shape ``(N, T)``, boolean.
        mask: Which frames are valid, shape ``(N, T)``, boolean; ``None`` for all.
        distance: ``"mse"``, ``"l1"`` or ``"smooth_l1"``.
        reduction: Mean over ``"frame"`` or ``"utterance"``, see `reduce_frames`; an utterance of which nothing was
            hidden does not count.

    Returns:
        Loss, non-negative, at least float32, shape ``()``; 0 if nothing valid was hidden.

    Raises:
        ShapeError: If the features differ in shape, have not three axes or are empty, or a mask does not fit.
        TypeError: If the features are not floating point, or a mask not boolean.
        ValueError: If ``distance`` or ``reduction`` is unknown.

    Source:
        Wang et al., "LightHuBERT: Lightweight and Configurable Speech Representation Learning with Once-for-All
        Hidden-Unit BERT", arXiv:2203.15610. Its training code is not public; the distance is from memory.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import hidden_frame_regression
        >>> student, teacher = torch.tensor([[[1.0], [5.0]]]), torch.tensor([[[3.0], [0.0]]])
        >>> hidden_frame_regression(student, teacher, torch.tensor([[True, False]]))  # (1 - 3)²
        tensor(4.)
    """
    check_choice("distance", distance, DISTANCES)
    chosen = hidden if mask is None else hidden & mask
    s, t = masked_operands(student, teacher, chosen)
    if distance == "smooth_l1":
        values = F.smooth_l1_loss(s, t, reduction="none")
    else:
        values = (s - t).square() if distance == "mse" else (s - t).abs()
    return reduce_frames(values.mean(dim=2), chosen, reduction)


def contextual_target(states: Sequence[Tensor]) -> Tensor:
    """Mean of several layers' states, each frame standardised over its channels first, as data2vec makes its target.

    Args:
        states: States of the layers, each of shape ``(N, T, D)``, floating point.

    Returns:
        Shape ``(N, T, D)``, at least float32.

    Raises:
        ShapeError: If there is none.

    Source:
        Baevski et al., "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language",
        arXiv:2202.03555.

    Example:
        >>> import torch
        >>> contextual_target([torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[3.0, 7.0]]])]).round()  # twice -1, 1
        tensor([[[-1.,  1.]]])
    """
    if not states:
        raise ShapeError("`states` must hold the states of at least one layer, got none.")
    wide = [state if state.dtype == torch.float64 else state.float() for state in states]
    return torch.stack([normalize_channels(state, "layer", -1) for state in wide]).mean(dim=0)


class HiddenFrameRegression(nn.Module):
    """Module form of `hidden_frame_regression`.

    Args:
        distance: ``"mse"``, ``"l1"`` or ``"smooth_l1"``.
        reduction: Mean over ``"frame"`` or ``"utterance"``.

    Raises:
        ValueError: If ``distance`` or ``reduction`` is unknown.
    """

    def __init__(self, *, distance: HiddenFrameDistance = "mse", reduction: FrameReduction = "frame") -> None:
        super().__init__()
        check_choice("distance", distance, DISTANCES)
        check_frame_reduction(reduction)
        self.distance: HiddenFrameDistance = distance
        self.reduction: FrameReduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        return hidden_frame_regression(student, teacher, hidden, mask, distance=self.distance, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"distance={self.distance!r}, reduction={self.reduction!r}"

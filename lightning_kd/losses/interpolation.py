"""Targets between student and teacher (TAID): the loss, and how far the target has moved."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative
from lightning_kd.losses._common import Reduction, check_reduction
from lightning_kd.losses._scores import score_operands
from lightning_kd.losses.cross_entropy import soft_cross_entropy

# Keeps the relative change of a loss finite.
_EPSILON = 1e-15


def interpolated_cross_entropy(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    mix: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy with a target between the student's own distribution and the teacher's.

    .. math::
        L = -\sum_c r_c \log p^s_c, \qquad
        r = \mathrm{softmax}\bigl((1 - t) \, \mathrm{sg}(z_s) + t \, z_t\bigr), \quad p^s = \mathrm{softmax}(z_s)

    with the gradient stopped at the target. At :math:`t = 1` it is `soft_cross_entropy`, at :math:`t = 0` the entropy
    of the student with zero gradient. It is not zero at equality.

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(..., C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape as ``student_logits``.
        mix: Share :math:`t` of the teacher, from 0 to 1: a number, or a tensor of shape ``()``, whose value is not
            checked.
        mask: True where a position counts, boolean of shape ``(...)``; ``None`` counts all.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(...)`` for ``"none"``.

    Raises:
        ShapeError: If the two logits differ in shape or are empty, or ``mask`` has another shape.
        TypeError: If the logits are not floating point or ``mask`` is not boolean.
        ValueError: If ``mix`` is a number out of range or ``reduction`` is unknown.

    Source:
        Shing et al., "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in Language
        Models", arXiv:2501.16937.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import interpolated_cross_entropy
        >>> teacher_logits = torch.tensor([[9.0, 1.0]]).log()
        >>> interpolated_cross_entropy(torch.zeros(1, 2), teacher_logits, mix=0.5)  # an even student: log 2
        tensor(0.6931)
    """
    if not isinstance(mix, Tensor):
        check_fraction("mix", mix)
    student, teacher = score_operands(student_logits, teacher_logits, mask)
    share = mix.to(student) if isinstance(mix, Tensor) else mix
    # Classes masked with -inf stay masked, and are not 0 times infinity at the ends.
    low = torch.finfo(student.dtype).min
    target = (1.0 - share) * student.detach().clamp(min=low) + share * teacher.clamp(min=low)
    return soft_cross_entropy(student, target, mask=mask, reduction=reduction)


class Interpolation(NamedTuple):
    """State of the adaptive interpolation: tensors of shape ``()``, so that nothing waits for the device.

    Attributes:
        mix: Share of the teacher in the target, from 0 to 1.
        momentum: Moving average of the loss's relative decrease.
        previous: Loss of the step before, in nats; infinite if there was none.
    """

    mix: Tensor
    momentum: Tensor
    previous: Tensor

    @classmethod
    def begin(cls, start: float = 0.4) -> "Interpolation":
        """State before the first step, with a share ``start`` of the teacher."""
        check_fraction("start", start)
        return cls(torch.tensor(float(start)), torch.zeros(()), torch.full((), torch.inf))


def next_interpolation(
    state: Interpolation,
    loss: Tensor,
    *,
    progress: float,
    start: float = 0.4,
    end: float = 1.0,
    rate: float = 5e-4,
    decay: float = 0.99,
) -> Interpolation:
    r"""Move the target towards the teacher, faster while the loss falls (TAID's schedule).

    .. math::
        m' &= \beta m + (1 - \beta) \frac{L' - L}{L' + 10^{-15}} \\
        t' &= \min\bigl(t_1, \max(t_0 + (t_1 - t_0) \tau, \; t + \alpha \, \sigma(m') (1 - t))\bigr)

    with the loss :math:`L`, the one before it :math:`L'` and the share :math:`\tau` of training that is done: a linear
    ramp is the least. The first call only remembers its loss.

    Args:
        state: State that ``loss`` was computed with.
        loss: Loss :math:`L` of this step, shape ``()``; no gradient flows.
        progress: Steps taken over all steps of training, :math:`\tau`, at least 0.
        start: Share :math:`t_0` at the beginning, from 0 to 1.
        end: Share :math:`t_1` at the end, from 0 to 1.
        rate: :math:`\alpha`, at least 0, dimensionless.
        decay: :math:`\beta` of the moving average, from 0 to 1.

    Returns:
        State for the next step.

    Raises:
        ValueError: If an option is out of range.

    Source:
        Shing et al., "TAID", arXiv:2501.16937.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import Interpolation, next_interpolation
        >>> state = next_interpolation(Interpolation.begin(), torch.tensor(1.0), progress=0.01)
        >>> next_interpolation(state, torch.tensor(0.9), progress=0.02).mix  # 0.4 + 0.6 * 0.02
        tensor(0.4120)
    """
    check_fraction("start", start)
    check_fraction("end", end)
    check_fraction("decay", decay)
    check_not_negative("rate", rate)
    check_not_negative("progress", progress)
    current = loss.detach().to(state.previous)
    is_first = state.previous.isinf()
    decrease = (state.previous - current) / (state.previous + _EPSILON)
    momentum = decay * state.momentum + (1.0 - decay) * decrease
    adaptive = state.mix + rate * momentum.sigmoid() * (1.0 - state.mix)
    mix = adaptive.clamp(min=start + (end - start) * progress).clamp(max=end)
    return Interpolation(
        torch.where(is_first, state.mix, mix), torch.where(is_first, state.momentum, momentum), current
    )


class InterpolatedCrossEntropy(nn.Module):
    """Module form of `interpolated_cross_entropy`.

    Args:
        mix: Share of the teacher in the target, from 0 to 1.
        reduction: ``"mean"`` over every leading axis, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``mix`` is out of range or ``reduction`` is unknown.
    """

    def __init__(self, *, mix: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_fraction("mix", mix)
        check_reduction(reduction)
        self.mix = mix
        self.reduction: Reduction = reduction

    @override
    def forward(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return interpolated_cross_entropy(
            student_logits, teacher_logits, mix=self.mix, mask=mask, reduction=self.reduction
        )

    @override
    def extra_repr(self) -> str:
        return f"mix={self.mix}, reduction={self.reduction!r}"

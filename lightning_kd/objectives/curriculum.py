"""Distillation that becomes harder while training: CTKD learns its temperature, TAID moves its target."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.gradients import reverse_gradient
from lightning_kd.losses import Interpolation, interpolated_cross_entropy, next_interpolation, soft_target_kl
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Progress, Ramp, Weight, check_weight, weight_at
from lightning_kd.step import Step
from lightning_kd.taps import Observation

_REVERSAL = Ramp(0.0, 1.0, over=10, shape="cosine")


def growing_reversal(progress: Progress) -> float:
    """Published strength of CTKD's reversal: half a cosine from 0 to 1 over 10 epochs, counted from 1.

    It is ``(1 - cos(pi * epoch / 10)) / 2``: the first epoch already reverses a little, the tenth in full.

    Args:
        progress: How far training is.

    Returns:
        The strength, dimensionless.

    Example:
        >>> [round(growing_reversal(Progress(epoch=epoch)), 4) for epoch in (0, 4, 9, 100)]
        [0.0245, 0.5, 1.0, 1.0]
    """
    return _REVERSAL(replace(progress, epoch=progress.epoch + 1))


class CTKD(LogitObjective):
    r"""Distillation at a temperature that learns to make it harder (curriculum temperature).

    The temperature is :math:`T = T_0 + r \, \sigma(\theta)` with one parameter :math:`\theta` that starts at 1. Its
    gradient, through both softmaxes and the factor :math:`T^2`, is reversed: it climbs what the student descends. How
    strongly is a schedule, so that the student meets an easy task first.

    Args:
        lowest: :math:`T_0`, above 0, dimensionless.
        span: :math:`r`, above 0: with the default 1 and 20 the temperature starts at 15.6.
        reversal: Strength of the reversal: a number, or a schedule; the published one grows over 10 epochs.
        weight: Factor of the term; 0.9 is published, with task weight 0.1.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        ValueError: If ``lowest`` or ``span`` is not above 0, or ``reversal`` is negative.

    Source:
        Li et al., "Curriculum Temperature for Knowledge Distillation", arXiv:2211.16231, its form with one global
        temperature.

    Example:
        >>> round(CTKD().temperature.item(), 4)
        15.6212
    """

    def __init__(
        self,
        *,
        lowest: float = 1.0,
        span: float = 20.0,
        reversal: Weight = growing_reversal,
        weight: Weight = 0.9,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "ctkd",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("lowest", lowest)
        check_positive("span", span)
        if not callable(reversal):
            check_weight("reversal", reversal)
        self.lowest = lowest
        self.span = span
        self.reversal = reversal
        self.theta = nn.Parameter(torch.ones(()))

    @property
    def temperature(self) -> Tensor:
        """Temperature at this moment, shape ``()``, without gradient."""
        return self._temperature(self.theta.detach())

    def _temperature(self, theta: Tensor) -> Tensor:
        return self.lowest + self.span * theta.sigmoid()

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        theta = reverse_gradient(self.theta, strength=weight_at(self.reversal, step.progress))
        return soft_target_kl(scores.student, scores.teacher, temperature=self._temperature(theta), mask=scores.mask)

    @override
    def extra_repr(self) -> str:
        return f"lowest={self.lowest}, span={self.span}, {super().extra_repr()}"


class TAIDKD(LogitObjective):
    """Distillation to a target that moves from the student's own distribution to the teacher's.

    The share of the teacher is at least a linear ramp over training and runs ahead of it while the loss falls; it is
    the buffer ``mix``, part of checkpoints. The term is a cross-entropy: not zero for a student that equals its
    teacher.

    Args:
        start: Share of the teacher at the beginning, from 0 to 1.
        end: Share at the end, from 0 to 1.
        rate: How fast the share runs ahead, at least 0.
        decay: Decay of the moving average of the loss's relative decrease, from 0 to 1.
        total_steps: Optimizer steps over which the ramp runs; ``None`` takes those of the Trainer.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        SetupError: While training, if the number of steps is neither given nor known.
        ValueError: If an option is out of range.

    Source:
        Shing et al., "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in Language
        Models", arXiv:2501.16937.

    Example:
        >>> TAIDKD().mix
        tensor(0.4000)
    """

    mix: Tensor
    momentum: Tensor
    previous: Tensor

    def __init__(
        self,
        *,
        start: float = 0.4,
        end: float = 1.0,
        rate: float = 5e-4,
        decay: float = 0.99,
        total_steps: int | None = None,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "taid",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_fraction("end", end)
        check_fraction("decay", decay)
        check_not_negative("rate", rate)
        if total_steps is not None:
            check_positive("total_steps", total_steps)
        self.start = start
        self.end = end
        self.rate = rate
        self.decay = decay
        self.total_steps = total_steps
        for key, value in Interpolation.begin(start)._asdict().items():
            self.register_buffer(key, value)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        loss = interpolated_cross_entropy(scores.student, scores.teacher, mix=self.mix, mask=scores.mask)
        self._move(loss, self._done(step))
        return loss

    def _done(self, step: Step) -> float:
        total = self.total_steps or step.progress.total_steps
        if total is None:
            raise SetupError("`total_steps` is not known outside a Trainer that stops: pass TAIDKD(total_steps=...).")
        return step.progress.step / total

    def _move(self, loss: Tensor, done: float) -> None:
        state = Interpolation(self.mix, self.momentum, self.previous)
        options = {"start": self.start, "end": self.end, "rate": self.rate, "decay": self.decay}
        for value, moved in zip(state, next_interpolation(state, loss, progress=done, **options), strict=True):
            value.copy_(moved)

    @override
    def extra_repr(self) -> str:
        return f"start={self.start}, end={self.end}, {super().extra_repr()}"

"""An adversary that tells the student's outputs from the teacher's."""

from typing import Literal

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Probe
from lightning_kd.dense import classes_last
from lightning_kd.gradients import reverse_gradient
from lightning_kd.losses import discrimination
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, pick_tensor

Adversary = Literal["reversed", "joint"]
Output = int | str | None


class DiscriminatorKD(Objective):
    """A discriminator learns to tell the student's class scores from the teacher's, and the student to deceive it.

    It has three linear layers, from K classes over K/8 and K/64 (at least 2) to two scores. Its input are the logits of
    the student and, of an `EnsembleTeacher`, the mean of its members' logits.

    Args:
        adversary: ``"reversed"``: the gradient is reversed on its way to the student, which so becomes hard to tell
            apart. ``"joint"`` is the published code, where nothing is reversed and both lower one loss, so that the
            student becomes easy to tell apart, and the discriminator's output passes a ReLU.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher; ``None`` takes the mean of an ensemble's members.
        name: Name of the term.

    Raises:
        ValueError: If ``adversary`` is unknown.

    Source:
        Shen and Savvides, "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
        arXiv:2009.08453; the reversal is ours.

    Example:
        >>> DiscriminatorKD().adversary
        'reversed'
    """

    def __init__(
        self,
        *,
        adversary: Adversary = "reversed",
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "discriminator",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_choice("adversary", adversary, ("reversed", "joint"))
        self.adversary = adversary
        self.student_output = student_output
        self.teacher_output = teacher_output
        self.discriminator: nn.Module = nn.Identity()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        classes = self._student_logits(student.observation).shape[-1]
        widths = max(classes // 8, 2), max(classes // 64, 2)
        last: list[nn.Module] = [nn.ReLU()] if self.adversary == "joint" else []
        self.discriminator = nn.Sequential(
            nn.Linear(classes, widths[0]),
            nn.ReLU(),
            nn.Linear(*widths),
            nn.ReLU(),
            nn.Linear(widths[1], 2),
            *last,
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        logits = self._student_logits(student)
        known = self._teacher_logits(teacher)
        shown = reverse_gradient(logits) if self.adversary == "reversed" else logits
        scores = [self.discriminator(rows.float().flatten(0, -2)) for rows in (shown, known)]
        return discrimination(*scores)

    def _student_logits(self, student: Observation) -> Tensor:
        return classes_last(pick_tensor(student.output, self.student_output, "the student's output"))

    def _teacher_logits(self, teacher: Observation) -> Tensor:
        output = teacher.output
        if self.teacher_output is None and isinstance(output, dict) and "members" in output:
            return classes_last(output["members"].mean(dim=0)).detach()
        return classes_last(pick_tensor(output, self.teacher_output, "the teacher's output")).detach()

    @override
    def extra_repr(self) -> str:
        return f"adversary={self.adversary!r}, weight={getattr(self.weight, '__name__', self.weight)}"

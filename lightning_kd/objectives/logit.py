"""Distillation of what the models finally say."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, pick_tensor


class LogitKD(Objective):
    """Temperature-scaled KL divergence between the outputs of teacher and student.

    Outputs may be tensors, tuples (the first tensor is taken) or mappings (``"logits"`` is taken). Classes are on the
    last axis, on axis 1 of dense predictions of shape ``(N, C, H, W)``.

    Args:
        temperature: Softmax temperature above 0, dimensionless. 4 is usual for small label sets, 1 for ImageNet.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.

    Example:
        >>> LogitKD(temperature=4.0, weight=0.9)
        LogitKD(temperature=4.0, weight=0.9)
    """

    needs_examples = False

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        weight: Weight = 1.0,
        student_output: int | str | None = None,
        teacher_output: int | str | None = None,
        name: str = "logit",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.student_output = student_output
        self.teacher_output = teacher_output

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        student_logits = _classes_last(pick_tensor(student.output, self.student_output, "the student's output"))
        teacher_logits = _classes_last(pick_tensor(teacher.output, self.teacher_output, "the teacher's output"))
        if student_logits.shape[-1] != teacher_logits.shape[-1]:
            raise ShapeError(
                f"`teacher` tells {teacher_logits.shape[-1]} classes apart and the student {student_logits.shape[-1]}: "
                "logits can only be distilled on one label set. Use a teacher trained on the student's labels, or "
                "distil features (FeatureKD, CKAKD)."
            )
        return soft_target_kl(student_logits, teacher_logits, temperature=self.temperature)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, weight={self.weight}"


def _classes_last(logits: Tensor) -> Tensor:
    return logits.movedim(1, -1) if logits.ndim == 4 else logits

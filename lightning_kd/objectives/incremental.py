"""Distillation of what a network knew before it learnt new classes."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses import soft_target_kl
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class OldClassesKD(LogitObjective):
    """Temperature-scaled KL divergence on the classes that the teacher knows: the first of the student's.

    The teacher is the network before it learnt new classes. Its classes keep their places in the student's classifier,
    see `lightning_kd.incremental.extend_classifier`.

    Args:
        temperature: Softmax temperature above 0, dimensionless; 2 is published.
        weight: Factor of the term; see the recipe ``class_incremental``.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0.

    Source:
        Zhao et al., "Maintaining Discrimination and Fairness in Class Incremental Learning", arXiv:1911.07053.

    Example:
        >>> OldClassesKD(weight=0.5)
        OldClassesKD(temperature=2.0, weight=0.5)
    """

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        name: str = "old_classes",
    ) -> None:
        super().__init__(
            student_output=student_output, teacher_output=teacher_output, ignore_index=None, name=name, weight=weight
        )
        check_positive("temperature", temperature)
        self.temperature = temperature

    @override
    def on_one_label_set(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        old, classes = teacher_logits.shape[-1], student_logits.shape[-1]
        if old >= classes:
            raise ShapeError(
                f"the student must tell more classes apart than the teacher's {old}, got {classes}: add classes by "
                "extend_classifier, or use LogitKD."
            )
        return student_logits[..., :old], teacher_logits

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        student_logits, teacher_logits, _ = self.scores(student, teacher, step)
        return soft_target_kl(student_logits, teacher_logits, temperature=self.temperature)

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, {super().extra_repr()}"

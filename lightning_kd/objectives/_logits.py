"""What objectives on class scores share."""

from typing import NamedTuple

from torch import Tensor
from typing_extensions import override

from lightning_kd.dense import classes_last, labels_on
from lightning_kd.errors import ShapeError
from lightning_kd.objectives.base import Objective
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, pick_tensor

Output = int | str | None


class Scores(NamedTuple):
    """Class scores of one call of both models, classes on the last axis.

    Attributes:
        student: The student's logits, shape ``(..., C)``.
        teacher: The teacher's, on the same label set.
        mask: True where a position has a class, shape ``(...)``; ``None`` if all have.
    """

    student: Tensor
    teacher: Tensor
    mask: Tensor | None


class LogitObjective(Objective):
    """An objective on what both models return: class scores on one label set.

    Outputs may be tensors, tuples (the first tensor is taken) or mappings (``"logits"`` is taken). Classes are on the
    last axis, on axis 1 of dense predictions of shape ``(N, C, H, W)``.

    Args:
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class, such as 255 in masks; ``None`` counts all
            positions and needs no labels.
        name: Name of the term.
        weight: Factor of the term.
    """

    needs_examples = False

    def __init__(
        self, *, student_output: Output, teacher_output: Output, ignore_index: int | None, name: str, weight: Weight
    ) -> None:
        super().__init__(name=name, weight=weight)
        self.student_output = student_output
        self.teacher_output = teacher_output
        self.ignore_index = ignore_index

    def scores(self, student: Observation, teacher: Observation, step: Step) -> Scores:
        """Read both logits, and which positions count."""
        student_logits = classes_last(pick_tensor(student.output, self.student_output, "the student's output"))
        teacher_logits = classes_last(pick_tensor(teacher.output, self.teacher_output, "the teacher's output"))
        student_logits, teacher_logits = self.on_one_label_set(student_logits, teacher_logits)
        mask = None if self.ignore_index is None else class_indices(step, student_logits) != self.ignore_index
        return Scores(student_logits, teacher_logits, mask)

    def on_one_label_set(self, student_logits: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Both logits over the classes that are compared: as they are, if the networks tell the same ones apart."""
        if student_logits.shape[-1] != teacher_logits.shape[-1]:
            raise ShapeError(
                f"`teacher` tells {teacher_logits.shape[-1]} classes apart and the student {student_logits.shape[-1]}: "
                "logits can only be distilled on one label set. Use a teacher trained on the student's labels, or "
                "distil features (FeatureKD, CKAKD)."
            )
        return student_logits, teacher_logits

    @override
    def extra_repr(self) -> str:
        return f"weight={getattr(self.weight, '__name__', self.weight)}"


def class_indices(step: Step, logits: Tensor) -> Tensor:
    """Class at each position of ``logits`` ``(N, *grid, C)``; dense labels are read at the nearest pixel."""
    return labels_on(step.class_indices, tuple(logits.shape[1:-1]))

"""Distillation of what the models finally say."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.losses import class_mean_kl, soft_target_kl, standardize_logits
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class LogitKD(LogitObjective):
    """Temperature-scaled KL divergence between the outputs of teacher and student.

    Outputs may be tensors, tuples (the first tensor is taken) or mappings (``"logits"`` is taken). Classes are on the
    last axis, on axis 1 of dense predictions of shape ``(N, C, H, W)``.

    Args:
        temperature: Softmax temperature above 0, dimensionless. 4 is usual for small label sets, 1 for ImageNet.
        class_mean: Whether to divide by the number of classes, as a mean over all elements does instead of one over
            samples, see `class_mean_kl`.
        standardize: Whether both logits are standardised over the classes before, so that the student need not match
            how large the teacher's scores are; published with temperature 2, weight 9 and task weight 0.1.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index in the batch's labels that marks a position without a class, such as 255 in masks;
            ``None`` counts all positions and needs no labels.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531; standardised: Sun et
        al., "Logit Standardization in Knowledge Distillation", arXiv:2403.01427.

    Example:
        >>> LogitKD(temperature=4.0, weight=0.9)
        LogitKD(temperature=4.0, weight=0.9)
    """

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        class_mean: bool = False,
        standardize: bool = False,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "logit",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.class_mean = class_mean
        self.standardize = standardize

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        student_logits, teacher_logits, mask = self.scores(student, teacher, step)
        if self.standardize:
            student_logits, teacher_logits = standardize_logits(student_logits), standardize_logits(teacher_logits)
        divergence = class_mean_kl if self.class_mean else soft_target_kl
        return divergence(student_logits, teacher_logits, temperature=self.temperature, mask=mask)

    @override
    def extra_repr(self) -> str:
        standardize = ", standardize=True" if self.standardize else ""
        class_mean = ", class_mean=True" if self.class_mean else ""
        return f"temperature={self.temperature}{class_mean}{standardize}, {super().extra_repr()}"

"""Distillation of how class probabilities vary: DIST."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.distributed import gather_rows, joint_batch
from lightning_kd.losses import class_correlation
from lightning_kd.losses.correlation import LEAST_ROWS
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class DISTKD(LogitObjective):
    """One minus the correlation of probabilities, over the classes of a sample and over the samples of a class.

    It asks the student to rank classes and samples as a much stronger teacher does, not to be as certain. The samples'
    part looks at the batch: large ones serve it better. A batch of fewer than 3 samples gives a term of exactly zero,
    as happens with the last batch of an epoch.

    Args:
        temperature: Softmax temperature above 0, dimensionless: 4 on CIFAR-100, 1 on ImageNet.
        inter: Weight of the classes' part.
        intra: Weight of the samples' part.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term; 2 is published.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not above 0, or ``inter`` or ``intra`` is negative.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv:2205.10536, on top of cross-entropy with
        weight 1.

    Example:
        >>> DISTKD(temperature=1.0)
        DISTKD(temperature=1.0, inter=1.0, intra=1.0, weight=2.0)
    """

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        inter: float = 1.0,
        intra: float = 1.0,
        gather: bool = False,
        weight: Weight = 2.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "dist",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        check_not_negative("inter", inter)
        check_not_negative("intra", intra)
        self.temperature = temperature
        self.inter = inter
        self.intra = intra
        self.gather = gather

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        student_logits, teacher_logits, mask = self.scores(student, teacher, step)
        student_logits, teacher_logits = joint_batch(student_logits, teacher_logits, gather=self.gather)
        if self.gather and mask is not None:
            mask = gather_rows(mask.float()).bool()
        if student_logits.shape[:-1].numel() < LEAST_ROWS:
            return student_logits[:0].float().sum()
        return class_correlation(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            inter=self.inter,
            intra=self.intra,
            mask=mask,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, inter={self.inter}, intra={self.intra}, {super().extra_repr()}"

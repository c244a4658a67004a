"""Distillation of the target class and the other classes apart: DKD and NKD."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.losses import decoupled_kl, normalized_cross_entropy
from lightning_kd.objectives._logits import LogitObjective, Output, class_indices
from lightning_kd.schedules import Weight, warm_up
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class DKD(LogitObjective):
    """Decoupled distillation: target class against the rest, and among the rest, each with its own weight.

    The target is the batch's label, see `Step`; of mixed labels the largest class.

    Args:
        temperature: Softmax temperature above 0, dimensionless.
        alpha: Weight of the target class against the rest.
        beta: Weight among the other classes: 8 for ResNet-32x4 teachers, 6 for VGG and WRN, 2 for ResNet-56 and -110.
        weight: Factor of the term; the published one is `warm_up`, over 20 epochs.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not above 0, or ``alpha`` or ``beta`` is negative.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679, on top of cross-entropy with weight 1.

    Example:
        >>> DKD(beta=2.0)
        DKD(temperature=4.0, alpha=1.0, beta=2.0, weight=warm_up)
    """

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        alpha: float = 1.0,
        beta: float = 8.0,
        weight: Weight = warm_up,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "dkd",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        return decoupled_kl(
            scores.student,
            scores.teacher,
            class_indices(step, scores.student),
            temperature=self.temperature,
            alpha=self.alpha,
            beta=self.beta,
            mask=scores.mask,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}"


class NKD(LogitObjective):
    """Normalised distillation: cross-entropy at the target weighted by the teacher, and among the others normalised.

    The target is the batch's label, see `Step`; of mixed labels the largest class. The term is not zero for a student
    that equals its teacher.

    Args:
        temperature: Softmax temperature of the other classes, above 0, dimensionless: 1 on ImageNet, 3 on CIFAR-100.
        gamma: Weight of the other classes: 1.5 on ImageNet, 1 for DeiT students, 3.5 on CIFAR-100.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        ValueError: If ``temperature`` is not above 0 or ``gamma`` is negative.

    Source:
        Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation", arXiv:2303.13005, on top of
        cross-entropy with weight 1.

    Example:
        >>> NKD()
        NKD(temperature=1.0, gamma=1.5, weight=1.0)
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        gamma: float = 1.5,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "nkd",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_positive("temperature", temperature)
        check_not_negative("gamma", gamma)
        self.temperature = temperature
        self.gamma = gamma

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        return normalized_cross_entropy(
            scores.student,
            scores.teacher,
            class_indices(step, scores.student),
            temperature=self.temperature,
            gamma=self.gamma,
            mask=scores.mask,
        )

    @override
    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gamma={self.gamma}, {super().extra_repr()}"

"""Distillation by other divergences than the KL divergence from the teacher."""

from torch import Tensor
from typing_extensions import override

from lightning_kd.losses import jensen_shannon, skew_kl, skew_reverse_kl, symmetric_kl
from lightning_kd.losses.skew import check_skew
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class SymmetricKLKD(LogitObjective):
    """Mean of the KL divergences from teacher to student and back, as SSLD distils; it needs no labels.

    Args:
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index in the batch's labels that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Source:
        Cui et al., "Beyond Self-Supervision" (SSLD), arXiv:2103.05959, the form of its code, alone on unlabelled
        images: ``task_weight=0``. There the teacher's batch normalisation runs in training mode.

    Example:
        >>> SymmetricKLKD(weight=0.5)
        SymmetricKLKD(weight=0.5)
    """

    def __init__(
        self,
        *,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "symmetric_kl",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        return symmetric_kl(scores.student, scores.teacher, mask=scores.mask)


class JSKD(LogitObjective):
    """Jensen-Shannon divergence of both outputs: symmetric, and at most log 2 for each sample.

    Args:
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index in the batch's labels that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Source:
        Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37(1), 1991;
        its use as an objective, and the weight, are ours.

    Example:
        >>> JSKD()
        JSKD(weight=1.0)
    """

    def __init__(
        self,
        *,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "js",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        return jensen_shannon(scores.student, scores.teacher, mask=scores.mask)


class SkewKLKD(LogitObjective):
    """KL divergence to a mixture of both outputs, which cannot grow without bound.

    Args:
        skew: Share in the mixture of the distribution that is measured, above 0 and below 1.
        reverse: ``False`` measures the teacher's distribution, which the student then covers; ``True`` the student's,
            which then keeps to what the teacher finds likely.
        weight: Factor of the term.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        ignore_index: Class index in the batch's labels that marks a position without a class; ``None`` counts all.
        name: Name of the term.

    Raises:
        ValueError: If ``skew`` is not between 0 and 1.

    Source:
        Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models", arXiv:2402.03898.

    Example:
        >>> SkewKLKD(reverse=True)
        SkewKLKD(skew=0.1, reverse=True, weight=1.0)
    """

    def __init__(
        self,
        *,
        skew: float = 0.1,
        reverse: bool = False,
        weight: Weight = 1.0,
        student_output: Output = None,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "skew_kl",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_skew(skew)
        self.skew = skew
        self.reverse = reverse

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        divergence = skew_reverse_kl if self.reverse else skew_kl
        return divergence(scores.student, scores.teacher, skew=self.skew, mask=scores.mask)

    @override
    def extra_repr(self) -> str:
        return f"skew={self.skew}, reverse={self.reverse}, {super().extra_repr()}"

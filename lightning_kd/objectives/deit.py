"""Distillation into a token of its own: DeiT, DeiT-LT and KWT."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice, check_fraction, check_not_negative, check_positive
from lightning_kd.errors import SetupError
from lightning_kd.losses import class_mean_kl, hard_target_cross_entropy
from lightning_kd.objectives._logits import LogitObjective, Output
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation

Kind = Literal["hard", "soft"]


class DeiTKD(LogitObjective):
    """The teacher's decision, or its distribution, for the head of the student's distillation token.

    In training the student returns the logits of its class token and of its distillation token, see
    `with_distillation_token`; the task loss is on the first, this term on the second.

    With ``class_weights`` and ``reweight_from`` this is the deferred re-weighting of DeiT-LT: from that epoch on the
    decisions are weighted, so that the token becomes an expert of the rare classes.

    Args:
        kind: ``"hard"`` for cross-entropy with the teacher's most likely class, ``"soft"`` for `class_mean_kl`: the
            divergence over the number of classes, as the official code has it.
        temperature: Softmax temperature of ``"soft"``, above 0, dimensionless.
        class_weights: Weight of each class for ``"hard"``, such as `class_balanced_weights` of the training counts;
            ``None`` weighs all alike.
        reweight_from: Epoch from which ``class_weights`` count.
        label_smoothing: Share of the target of ``"hard"`` that is spread over all classes; KWT has 0.1.
        weight: Factor of the term; 0.5 is published, with task weight 0.5.
        student_output: Index or key of the distillation token's logits in the student's output.
        teacher_output: Index or key of the logits in the teacher's output; ``None`` takes the usual one.
        ignore_index: Class index that marks a position without a class; ``None`` counts all and needs no labels.
        name: Name of the term.

    Raises:
        SetupError: If an option is given that the others leave without effect.
        ValueError: If ``kind`` is unknown or an option is out of range.

    Source:
        Touvron et al., "Training data-efficient image transformers & distillation through attention", arXiv:2012.12877;
        Rangwani et al., "DeiT-LT", arXiv:2404.02900, with weights at beta 0.9999, from epoch 1100 of 1200 on CIFAR-10
        and 1200 of 1400 on ImageNet, whose weighted soft form multiplies log-probabilities and is left out; Berg,
        O'Connor and Cruz, "Keyword Transformer", arXiv:2104.00769.

    Example:
        >>> DeiTKD()
        DeiTKD(kind='hard', weight=0.5)
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        kind: Kind = "hard",
        temperature: float = 1.0,
        class_weights: Tensor | Sequence[float] | None = None,
        reweight_from: int = 0,
        label_smoothing: float = 0.0,
        weight: Weight = 0.5,
        student_output: Output = 1,
        teacher_output: Output = None,
        ignore_index: int | None = None,
        name: str = "deit",
    ) -> None:
        super().__init__(
            student_output=student_output,
            teacher_output=teacher_output,
            ignore_index=ignore_index,
            name=name,
            weight=weight,
        )
        check_choice("kind", kind, ("hard", "soft"))
        check_positive("temperature", temperature)
        check_not_negative("reweight_from", reweight_from)
        check_fraction("label_smoothing", label_smoothing)
        if kind == "hard" and temperature != 1.0:
            raise SetupError(
                f"`temperature` must be left out with kind='hard', got {temperature}: a decision has none."
            )
        if kind == "soft" and class_weights is not None:
            raise SetupError("`class_weights` must be left out with kind='soft': they weigh the teacher's decisions.")
        if kind == "soft" and label_smoothing:
            raise SetupError(f"`label_smoothing` must be left out with kind='soft', got {label_smoothing}.")
        if class_weights is None and reweight_from:
            raise SetupError(f"`reweight_from` must be left out without class_weights, got {reweight_from}.")
        self.kind = kind
        self.temperature = temperature
        self.reweight_from = reweight_from
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.get_default_dtype())
        self.register_buffer("class_weights", weights, persistent=False)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        scores = self.scores(student, teacher, step)
        if self.kind == "soft":
            return class_mean_kl(scores.student, scores.teacher, temperature=self.temperature, mask=scores.mask)
        weights = self.class_weights if step.progress.epoch >= self.reweight_from else None
        return hard_target_cross_entropy(
            scores.student,
            scores.teacher,
            class_weights=weights,
            mask=scores.mask,
            label_smoothing=self.label_smoothing,
        )

    @override
    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, {super().extra_repr()}"

"""Recipes for students that are compressed while they are distilled."""

from collections.abc import Sequence
from typing import Literal

import lightning.pytorch as pl
from torch import nn

from lightning_kd._checks import check_choice
from lightning_kd.callbacks import KnowledgeDistillation, LowBitTraining, TeacherIntervention
from lightning_kd.compression.weight_quantizers import TernaryWeights, WeightQuantizer
from lightning_kd.objectives import LogitKD, TinyBERTKD


def quantized_distillation(
    teacher: nn.Module,
    quantizer: WeightQuantizer,
    *,
    path: str = "",
    skip: Sequence[str] = (),
    class_mean: bool = True,
) -> list[pl.Callback]:
    """Quantised distillation, or differentiable quantisation: a student of few levels learns from class scores.

    `UniformWeights` trains full-precision weights through the rounding; `LearnedLevels` keeps a trained student's
    weights and learns where the levels are, and takes that student in full precision as the teacher.

    Args:
        teacher: A trained network.
        quantizer: `lightning_kd.compression.UniformWeights` or `LearnedLevels`.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        skip: Paths of modules in the student to leave in full precision.
        class_mean: Whether the divergence is a mean over classes too, as in the published code; the paper's sum over
            classes is as many times larger as there are classes.

    Returns:
        The distillation and `LowBitTraining`. Published are weight decay 2.2e-4 for the weights, and for learned levels
        ``SGD(lr=1e-5)`` without.

    Source:
        Polino, Pascanu and Alistarh, "Model compression via distillation and quantization", arXiv:1802.05668.
    """
    logit = LogitKD(temperature=2.0, weight=0.7, class_mean=class_mean)
    kd = KnowledgeDistillation(teacher, student=path, objectives=[logit], task_weight=0.3)
    return [kd, LowBitTraining(quantizer, student=path, skip=skip)]


def teacher_intervention(
    teacher: nn.Module,
    *,
    path: str = "",
    step: Literal[1, 2] = 1,
    skip: Sequence[str] = (),
    activation_bits: int | None = 8,
    per_row: bool = True,
) -> list[pl.Callback]:
    """Teacher Intervention: a transformer of ternary weights, first with its teacher's attention, then on its own.

    The student starts as a copy of its teacher. Step 1 is a short ``fit``; step 2 is another one of the same module,
    with the second list of callbacks. There is no task loss in either.

    Args:
        teacher: A trained transformer of the student's architecture.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        step: 1 with the teacher's signals, gradually fewer; 2 without.
        skip: Paths of modules in the student to leave in full precision, such as patch embedding and classifier.
        activation_bits: Bits of the inputs of quantised layers, limited to magnitudes of 2.5; ``None`` leaves them.
        per_row: Whether each output of a layer has its own ternary scale; the published code has one for each layer.

    Returns:
        The distillation of scores, hidden states, attention outputs and class scores, `LowBitTraining`, and in step 1
        `TeacherIntervention`. Published are 3 epochs at a learning rate of 2e-5 for step 1. The divergence of class
        scores stands for their soft cross-entropy: the gradient is the same. The factors of attention products are not
        quantised.

    Raises:
        ValueError: If ``step`` is neither 1 nor 2.

    Source:
        Kim et al., "Teacher Intervention: Improving Convergence of Quantization Aware Training for Ultra-Low Precision
        Transformers", arXiv:2302.11812.
    """
    check_choice("step", step, (1, 2))
    insides = TinyBERTKD(projection="none", attention_outputs=True, name="insides")
    kd = KnowledgeDistillation(teacher, student=path, objectives=[insides, LogitKD(temperature=1.0)], task_weight=0.0)
    low_bit = LowBitTraining(
        TernaryWeights(per_row=per_row),
        student=path,
        skip=skip,
        activation_bits=activation_bits,
        activation_clip=None if activation_bits is None else 2.5,
    )
    return [kd, low_bit] if step == 2 else [kd, low_bit, TeacherIntervention(teacher, student=path)]

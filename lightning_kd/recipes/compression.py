"""Recipes for students that are compressed while they are distilled."""

from collections.abc import Sequence
from typing import Literal

import lightning.pytorch as pl
from torch import nn

from lightning_kd._checks import check_choice
from lightning_kd.callbacks import KnowledgeDistillation, LowBitTraining, TeacherIntervention, TwoFourSparsity
from lightning_kd.compression.masks import layer_importance
from lightning_kd.compression.weight_quantizers import TernaryWeights, WeightQuantizer
from lightning_kd.errors import SetupError
from lightning_kd.families import family_of, stage_taps
from lightning_kd.losses.feature import Normalization
from lightning_kd.objectives import FeatureKD, LogitKD, Objective, TinyBERTKD
from lightning_kd.recipes._places import EVERY_STAGE, at_stages, place
from lightning_kd.schedules import Weight
from lightning_kd.teachers.frozen import unwrapped


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


def sparse_distillation(
    teacher: nn.Module,
    student: nn.Module,
    *,
    path: str = "",
    weights: tuple[Weight, Weight, float] = (1.0, 1.0, 1.0),
    temperature: float = 4.0,
    normalization: Normalization = "none",
    skip: Sequence[str] = (),
    quantization: pl.Callback | None = None,
) -> list[pl.Callback]:
    r"""Sparse distillation: a student is pruned to 2:4 and learns from a dense teacher; then it is quantised likewise.

    .. math::
        L = a \, \mathrm{CE} + b \, T^2 \, \mathrm{KL} + g \sum_l w_l \, \mathrm{MSE}_l, \qquad \sum_l w_l = 1

    with the four stages :math:`l` of both networks, and :math:`w_l` by `layer_importance`: stages that pruning takes
    most from weigh most. The second phase is another ``fit`` of the same module with ``quantization``; the zeros stay.

    Args:
        teacher: A trained network: the dense student itself, copied, or a larger one.
        student: The trained network that the LightningModule trains, before it is pruned.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        weights: :math:`a`, :math:`b` and :math:`g`.
        temperature: :math:`T`.
        normalization: Of the features, see `FeatureKD`; ``"layer"`` for a teacher of another architecture.
        skip: Paths of modules in the student to leave dense.
        quantization: For the second phase: a callback that trains with quantised weights and activations.

    Returns:
        The distillation, `TwoFourSparsity`, and ``quantization`` if it is given.

    Raises:
        SetupError: If ``weights`` are not three.

    Source:
        Ours, after Yu et al., "Boost Vision Transformer with GPU-Friendly Sparsity and Quantization", arXiv:2305.10727,
        whose weights and layer importances are not public.
    """
    if len(weights) != 3:
        raise SetupError(f"`weights` must be those of task, class scores and features, got {len(weights)} of them.")
    task_weight, logit_weight, feature_weight = weights
    objectives: list[Objective] = [LogitKD(temperature=temperature, weight=logit_weight)]
    if family_of(student) is None or family_of(unwrapped(teacher)) is None:
        matched = FeatureKD((), (), normalization=normalization, weight=feature_weight)
        objectives.append(place(matched, teacher, student, at_stages(EVERY_STAGE)))
    else:
        taps = stage_taps(student, "student"), stage_taps(unwrapped(teacher), "teacher")
        importances = layer_importance(student, [tap.path for tap in taps[0]])
        for index, (s, t, importance) in enumerate(zip(*taps, importances, strict=True)):
            weight = feature_weight * importance
            objectives.append(FeatureKD(s, t, normalization=normalization, weight=weight, name=f"stage{index}"))
    kd = KnowledgeDistillation(teacher, student=path, objectives=objectives, task_weight=task_weight)
    callbacks: list[pl.Callback] = [kd, TwoFourSparsity(student=path, skip=skip)]
    return callbacks if quantization is None else [*callbacks, quantization]

"""Recipes for students that are compressed while they are distilled."""

from collections.abc import Sequence

import lightning.pytorch as pl
from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation, LowBitTraining
from lightning_kd.compression.weight_quantizers import WeightQuantizer
from lightning_kd.objectives import LogitKD


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

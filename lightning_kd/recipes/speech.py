"""Recipes that distil encoders of raw audio: DistilHuBERT, FitHuBERT, ARMHuBERT."""

from collections.abc import Sequence

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.objectives import ARMHuBERTKD, DistilHuBERTKD, FitHuBERTKD
from lightning_kd.speech.encoders import speech_encoder
from lightning_kd.teachers import FrozenTeacher, MaskedAndClean
from lightning_kd.teachers.frozen import unwrapped


def distilhubert(
    teacher: nn.Module, *, path: str = "", layers: Sequence[int] = (4, 8, 12), cosine_weight: float = 1.0
) -> KnowledgeDistillation:
    """DistilHuBERT: heads on a student of two layers predict three of the teacher's; no labels.

    Make the student with `lightning_kd.students.distilhubert_student`. Published are 200,000 steps of 24 utterances of
    at most 250,000 samples, AdamW with learning rate 2e-4, betas (0.9, 0.98), epsilon 1e-6 and weight decay 1e-6,
    warmed up over 7 % of the steps and then falling linearly, gradients clipped at 5.

    Args:
        teacher: HuBERT, wav2vec 2.0 or WavLM of transformers. Its LayerDrop is set to 0.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        layers: Hidden states to predict; the publication's, while the official code ships (4, 12).
        cosine_weight: Factor of the cosine beside the absolute difference.

    Returns:
        The callback, without a task loss: ``training_step`` may return a zero.

    Raises:
        SetupError: If ``teacher`` does not hold exactly one speech encoder.

    Source:
        Chang et al., "DistilHuBERT: Speech Representation Learning by Layer-wise Distillation of Hidden-unit BERT",
        arXiv:2110.01900.
    """
    objectives = [DistilHuBERTKD(layers, cosine_weight=cosine_weight)]
    return KnowledgeDistillation(_without_layerdrop(teacher), student=path, objectives=objectives, task_weight=0.0)


def fithubert(
    teacher: nn.Module, *, path: str = "", hint_weight: float = 0.1, random_layers: int | None = None
) -> KnowledgeDistillation:
    """FitHuBERT: each of the many thin layers of a student predicts the teacher's of the same depth; no labels.

    Make the student as ``ThinHubert(fithubert_config())`` of `lightning_kd.students`. Published are 100 epochs of
    batches of 24 in all, AdamW with learning rate 5e-4, betas (0.9, 0.98) and weight decay 1e-6, warmed up over 5 % of
    the steps and then falling linearly.

    Args:
        teacher: HuBERT, wav2vec 2.0 or WavLM of transformers, as deep as the student. Its LayerDrop is set to 0.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        hint_weight: Factor of every layer but the last.
        random_layers: Layers below the last that count in an epoch, drawn anew for each; ``None`` for all.

    Returns:
        The callback, without a task loss: ``training_step`` may return a zero.

    Raises:
        SetupError: If ``teacher`` does not hold exactly one speech encoder.

    Source:
        Lee et al., "FitHuBERT: Going Thinner and Deeper for Knowledge Distillation of Speech Self-Supervised Learning",
        arXiv:2207.00555.
    """
    objectives = [FitHuBERTKD(hint_weight=hint_weight, random_layers=random_layers)]
    return KnowledgeDistillation(_without_layerdrop(teacher), student=path, objectives=objectives, task_weight=0.0)


def armhubert(teacher: nn.Module, *, path: str = "", hint_weight: float = 0.1) -> KnowledgeDistillation:
    """ARMHuBERT: a student that hears masked input learns from a teacher that hears it masked, and whole.

    Make the student as ``ThinHubert(armhubert_config())`` of `lightning_kd.students`, and call it with
    ``mask_time_indices=spans`` of `lightning_kd.speech.SpanMask`.

    Args:
        teacher: HuBERT, wav2vec 2.0 or WavLM of transformers, as deep as the student. Its LayerDrop is set to 0. It
            runs twice a step.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        hint_weight: Factor of every layer but the last.

    Returns:
        The callback, without a task loss: ``training_step`` may return a zero.

    Raises:
        SetupError: If ``teacher`` does not hold exactly one speech encoder, or comes with an input transform.

    Source:
        Jang et al., "Recycle-and-Distill: Universal Compression Strategy for Transformer-based Speech SSL Models"
        (ARMHuBERT), arXiv:2305.11685.
    """
    if isinstance(teacher, FrozenTeacher) and teacher.input_transform is not None:
        raise SetupError(
            "`teacher` must hear the student's audio, as it hears it twice, got a FrozenTeacher with an "
            "input_transform: build ARMHuBERTKD and KnowledgeDistillation(FrozenTeacher(MaskedAndClean(...)))."
        )
    twice = MaskedAndClean(unwrapped(_without_layerdrop(teacher)))
    objectives = [ARMHuBERTKD(hint_weight=hint_weight)]
    return KnowledgeDistillation(twice, student=path, objectives=objectives, task_weight=0.0)


def _without_layerdrop(teacher: nn.Module) -> nn.Module:
    config = speech_encoder(unwrapped(teacher), "teacher").module.config
    config.update({"layerdrop": 0.0})  # type: ignore[operator, union-attr]
    return teacher

"""Recipes that distil speech recognisers: CTC networks, transducers, Whisper."""

from typing import Any

from torch import nn

from lightning_kd._checks import check_fraction
from lightning_kd.callbacks.distillation import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.labels import configured
from lightning_kd.losses.frame_selection import FrameSelection
from lightning_kd.objectives.ctc import CTCKD, GuidedCTCKD
from lightning_kd.objectives.ctc_intermediate import IntermediateCTCKD
from lightning_kd.objectives.ctc_sequence import CTCSequenceKD
from lightning_kd.objectives.logit import LogitKD
from lightning_kd.objectives.transducer import TransducerKD
from lightning_kd.teachers.shared_encoder import SharedEncoderTeacher

IGNORED = -100


def ctc_kd(
    teacher: nn.Module,
    *,
    path: str = "",
    share: float = 1.0,
    temperature: float = 2.0,
    selection: FrameSelection | None = None,
    blank: int | None = None,
    lengths: Any = None,
) -> KnowledgeDistillation:
    """Frame-level distillation between CTC networks, on frames around the teacher's labels.

    Args:
        teacher: A CTC network with the student's label set and frame times.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        share: Weight of the term, from 0 to 1; the module's own loss has the rest. 0.25, 0.9 and 1 are published; with
            1, which symmetric selection allows, no transcripts are needed.
        temperature: Softmax temperature.
        selection: Which frames; ``None`` keeps those within one frame of a label.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: Where the lengths of utterances are among the student's arguments; ``None`` reads the attention mask.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Hilmes, Rossenbach and Schlueter, "Analyzing the Importance of Blank for CTC-Based Knowledge Distillation",
        Interspeech 2025.

    Example:
        >>> recipe = ctc_kd(nn.Linear(4, 3), share=0.25, blank=0)
        >>> recipe.objectives, recipe.task_weight
        ([CTCKD(temperature=2.0, selection=None, blank=0, weight=0.25)], 0.75)
    """
    check_fraction("share", share)
    term = CTCKD(temperature=temperature, selection=selection, blank=blank, lengths=lengths, weight=share)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=round(1.0 - share, 12))


def ctc_sequence(
    teacher: nn.Module,
    *,
    path: str = "",
    share: float = 1.0,
    hypotheses: int = 1,
    blank: int | None = None,
    lengths: Any = None,
) -> KnowledgeDistillation:
    """Sequence-level distillation between CTC networks of any frame rates: the teacher's transcripts are the labels.

    Args:
        teacher: A CTC network with the student's label set.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        share: Weight of the term, from 0 to 1; the module's own loss has the rest.
        hypotheses: How many transcripts of each utterance.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: Where the lengths of utterances are among the student's arguments; ``None`` reads the attention mask.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Hilmes, Rossenbach and Schlueter, Interspeech 2025; the share is ours.
    """
    check_fraction("share", share)
    term = CTCSequenceKD(hypotheses=hypotheses, blank=blank, lengths=lengths, weight=share)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=round(1.0 - share, 12))


def guided_ctc(
    teacher: nn.Module, *, path: str = "", weight: float = 1.0, blank: int | None = None, lengths: Any = None
) -> KnowledgeDistillation:
    """Guided CTC: the student's labels are drawn to the times of the teacher's, beside its own CTC loss.

    Args:
        teacher: A CTC network with the student's label set and frame rate.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        weight: Factor of the term.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: Where the lengths of utterances are among the student's arguments; ``None`` reads the attention mask.

    Returns:
        The callback.

    Source:
        Kurata and Audhkhasi, Interspeech 2019; its weight from memory.
    """
    term = GuidedCTCKD(blank=blank, lengths=lengths, weight=weight)
    return KnowledgeDistillation(teacher, student=path, objectives=[term])


def self_distilled_ctc(
    layer: str, *, path: str = "", weight: float = 1.0, blank: int | None = None, lengths: Any = None
) -> KnowledgeDistillation:
    """Self-distillation within a CTC network: an intermediate layer learns from the output, no teacher is needed.

    Args:
        layer: Path of the layer inside the student.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        weight: Factor of the term, divergence and CTC loss of the layer's own head together.
        blank: Index of the blank; ``None`` takes ``config.pad_token_id``.
        lengths: Where the lengths of utterances are among the student's arguments; ``None`` reads the attention mask.

    Returns:
        The callback.

    Source:
        Kim et al., "Guiding Frame-Level CTC Alignments Using Self-knowledge Distillation", 2024, from memory.
    """
    term = IntermediateCTCKD(layer, blank=blank, lengths=lengths, weight=weight)
    return KnowledgeDistillation(None, student=path, objectives=[term])


def transducer_kd(
    teacher: nn.Module, *, path: str = "", weight: float = 1e-2, blank: int = 0, lengths: Any = None
) -> KnowledgeDistillation:
    """Distillation of transducers on a lattice of three classes, beside the student's own loss.

    Args:
        teacher: A transducer that is called as the student is.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        weight: Factor of the term, a sum over each utterance's lattice.
        blank: Index of the blank.
        lengths: Where the lengths of utterances are among the student's arguments; ``None`` reads the attention mask.

    Returns:
        The callback.

    Source:
        Panchapagesan et al., "Efficient Knowledge Distillation for RNN-Transducer Models", arXiv:2011.06110; the weight
        from memory.
    """
    term = TransducerKD(blank=blank, lengths=lengths, reduction="utterance", weight=weight)
    return KnowledgeDistillation(teacher, student=path, objectives=[term])


def distil_whisper(
    teacher: nn.Module,
    student: nn.Module,
    *,
    path: str = "",
    ce_weight: float = 0.8,
    kl_weight: float = 1.0,
    temperature: float = 2.0,
    share_encoder: bool = True,
) -> KnowledgeDistillation:
    """Distil-Whisper: cross-entropy on the teacher's transcripts, and KL divergence at each of their tokens.

    The module's training step returns the cross-entropy on pseudo-labels, which ``model(**batch).loss`` is for batches
    of `WhisperCollator`; labels that are -100 count in neither loss.

    Args:
        teacher: ``WhisperForConditionalGeneration`` with its weights.
        student: The student, see `students.distil_whisper_student`.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        ce_weight: Factor of the cross-entropy. The published code has 0.8 here and 1 for the divergence; its paper the
            two exchanged.
        kl_weight: Factor of the divergence.
        temperature: Softmax temperature.
        share_encoder: Whether the teacher reads what the student's encoder, equal and frozen, has computed. The student
            is then called with keyword arguments.

    Returns:
        The callback.

    Raises:
        SetupError: If the vocabularies differ, or the encoder cannot be shared.

    Source:
        Gandhi, von Platen and Rush, "Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling",
        arXiv:2311.00430, in the form of its code.
    """
    sizes = [configured(model, "vocab_size") for model in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise SetupError(
            f"`student` must have the teacher's vocabulary of {sizes[1]} tokens, got {sizes[0]}: large-v3 has one "
            "token more than the others. Make the student of this teacher."
        )
    term = LogitKD(temperature=temperature, weight=kl_weight, ignore_index=IGNORED, name="token")
    shared = SharedEncoderTeacher(teacher, student) if share_encoder else teacher
    return KnowledgeDistillation(shared, student=path, objectives=[term], task_weight=ce_weight)

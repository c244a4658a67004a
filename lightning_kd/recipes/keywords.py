"""Recipes for keyword spotters: small networks on one second of audio, taught by a large one on the same waveform."""

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.objectives import DeiTKD, LogitKD, Objective, PooledCosineKD
from lightning_kd.recipes._weights import rest_of
from lightning_kd.taps import Tap


def keyword_spotting(
    teacher: nn.Module,
    *,
    path: str = "",
    temperature: float = 4.0,
    share: float = 0.5,
    embedding: str | Tap | None = None,
    hidden: str | Tap | None = None,
    cosine_weight: float = 1.0,
) -> KnowledgeDistillation:
    """The teacher's class scores, and if places are given the direction of its mean hidden state.

    Student and teacher get the same arguments, so that augmentation before the call is heard by both: let the student
    begin with its front end, and give both a waveform. A large encoder with a pooled head (transformers'
    ``HubertForSequenceClassification``) is such a teacher; give it the labels of the student.

    Args:
        teacher: A trained classifier of waveforms, with the student's classes.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        temperature: Softmax temperature.
        share: Weight of the class scores, from 0 to 1; the task loss has the rest. 0.5 to 0.9 are usual.
        embedding: Place in the student whose pooled feature is compared, such as ``"1.embedding"``.
        hidden: Place in the teacher, such as ``"hubert.encoder.layers.11"``.
        cosine_weight: Weight of that comparison.

    Returns:
        The callback.

    Raises:
        SetupError: If only one of ``embedding`` and ``hidden`` is given.
        ValueError: If a value is out of range.

    Source:
        Hinton, Vinyals and Dean, arXiv:1503.02531; the weights, and the pooled features, are ours.

    Example:
        >>> recipe = keyword_spotting(nn.Linear(4, 3), embedding="0", hidden="")
        >>> [objective.name for objective in recipe.objectives], recipe.task_weight
        (['logit', 'pooled_cosine'], 0.5)
    """
    task_weight = rest_of(share)
    objectives: list[Objective] = [LogitKD(temperature=temperature, weight=share)]
    if embedding is not None and hidden is not None:
        objectives.append(PooledCosineKD(embedding, hidden, weight=cosine_weight))
    elif embedding is not None or hidden is not None:
        raise SetupError(f"`embedding` and `hidden` must be given together, got {embedding!r} and {hidden!r}.")
    return KnowledgeDistillation(teacher, student=path, objectives=objectives, task_weight=task_weight)


def kwt(
    teacher: nn.Module, *, path: str = "", share: float = 0.5, label_smoothing: float = 0.1
) -> KnowledgeDistillation:
    """KWT: the teacher's decisions for the distillation token of a `KeywordTransformer`.

    The student is ``KeywordTransformer(distilled=True)`` behind ``MFCC()``; the module's loss is that of its first
    output, with the same label smoothing.

    Args:
        teacher: A trained classifier of waveforms; published is an attention RNN.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        share: Weight of the term, from 0 to 1; the task loss has the rest.
        label_smoothing: Share of the target that is spread over all classes.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Berg, O'Connor and Cruz, "Keyword Transformer: A Self-Attention Model for Keyword Spotting", arXiv:2104.00769.

    Example:
        >>> kwt(nn.Linear(4, 3)).objectives
        [DeiTKD(kind='hard', weight=0.5)]
    """
    term = DeiTKD(label_smoothing=label_smoothing, weight=share)
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=rest_of(share))

"""Recipes that distil features: stages of both families are paired, or pairs are chosen by CKA."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.families import last_map_tap
from lightning_kd.objectives import (
    ATKD,
    CKAKD,
    CWDKD,
    FRDKD,
    MGDKD,
    NKD,
    VIDKD,
    FeatureKD,
    FitNetKD,
    LogitKD,
    ReviewKD,
    SimKD,
    ViTKD,
)
from lightning_kd.recipes._places import (
    EVERY_STAGE,
    LAST_THREE,
    at_stages,
    classifies_images,
    first_and_last_blocks,
    levels_of_review,
    place,
)
from lightning_kd.schedules import Weight, warm_up
from lightning_kd.teachers.frozen import unwrapped


def fitnet(
    teacher: nn.Module, student: nn.Module, *, path: str = "", stage: int = 2, weight: Weight = 100.0
) -> KnowledgeDistillation:
    """FitNet: a regressor brings one stage of the student to the teacher's hint.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        stage: Which of the four stages, 0 to 3; the published hint is the middle one.
        weight: Factor of the term.

    Returns:
        The callback.

    Source:
        Romero et al., arXiv:1412.6550, with the weight of the CIFAR-100 baselines. Four stages are ours.
    """
    hint = place(FitNetKD((), (), weight=weight), teacher, student, at_stages([stage]), pairs=1)
    return KnowledgeDistillation(teacher, student=path, objectives=[hint])


def attention_transfer(
    teacher: nn.Module,
    student: nn.Module,
    *,
    path: str = "",
    stages: Sequence[int] = LAST_THREE,
    weight: Weight = 1000.0,
) -> KnowledgeDistillation:
    """AT: where each of the last three stages is active.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        stages: Which of the four stages, 0 to 3.
        weight: Factor of the term.

    Returns:
        The callback.

    Source:
        Zagoruyko and Komodakis, arXiv:1612.03928, with the weight of the CIFAR-100 baselines.
    """
    maps = place(ATKD((), (), weight=weight), teacher, student, at_stages(stages), pairs=len(stages))
    return KnowledgeDistillation(teacher, student=path, objectives=[maps])


def vid(
    teacher: nn.Module,
    student: nn.Module,
    *,
    path: str = "",
    stages: Sequence[int] = LAST_THREE,
    weight: Weight = 1.0,
) -> KnowledgeDistillation:
    """VID: the likelihood of the teacher's last three stages, given the student's.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        stages: Which of the four stages, 0 to 3.
        weight: Factor of the term.

    Returns:
        The callback.

    Source:
        Ahn et al., arXiv:1904.05835, with the weight of the CIFAR-100 baselines.
    """
    likelihood = place(VIDKD((), (), weight=weight), teacher, student, at_stages(stages), pairs=len(stages))
    return KnowledgeDistillation(teacher, student=path, objectives=[likelihood])


def review_kd(
    teacher: nn.Module, student: nn.Module, *, path: str = "", weight: Weight = warm_up
) -> KnowledgeDistillation:
    """ReviewKD: every level of the teacher from that and all deeper levels of the student, with a warm-up of 20 epochs.

    Levels are the last three stages, a convolutional teacher's before their last activation, and what is classified, if
    both networks classify images.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        weight: Factor of the term; 1 after the warm-up, and 5 for some pairs, see `ReviewKD`.

    Returns:
        The callback.

    Source:
        Chen et al., arXiv:2104.09044. Reading four-stage networks at their last three stages is ours, as the
        published networks have three.
    """
    classified = classifies_images(student) and classifies_images(unwrapped(teacher))
    levels = partial(levels_of_review, classified=classified)
    review = place(ReviewKD((), (), weight=weight), teacher, student, levels)
    return KnowledgeDistillation(teacher, student=path, objectives=[review])


def mgd(
    teacher: nn.Module, student: nn.Module, *, path: str = "", dense: bool = False, weight: Weight | None = None
) -> KnowledgeDistillation:
    """MGD: a network generates the teacher's last map from the student's, of which parts are hidden.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        dense: Whether this is detection or segmentation, which hide 65 to 75 % of the positions instead of 15 % of the
            channels.
        weight: Factor of the term; ``None`` takes the published 7e-5, or 2e-5 if ``dense``.

    Returns:
        The callback.

    Source:
        Yang et al., "Masked Generative Distillation", arXiv:2205.01529.
    """
    chosen = (2e-5 if dense else 7e-5) if weight is None else weight
    generation = MGDKD((), (), hides="positions", ratio=0.75, weight=chosen) if dense else MGDKD((), (), weight=chosen)
    return KnowledgeDistillation(
        teacher, student=path, objectives=[place(generation, teacher, student, at_stages([3]), pairs=1)]
    )


def cwd(teacher: nn.Module, *, path: str = "", ignore_index: int | None = 255) -> KnowledgeDistillation:
    """CWD for segmentation: where each class is, as a distribution over the pixels.

    Args:
        teacher: A trained segmentation network.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        ignore_index: Label of pixels that do not count; ``None`` counts all, and needs no labels.

    Returns:
        The callback.

    Source:
        Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", arXiv:2011.13256: temperature 4 and
        weight 3 on class scores. Leaving ignored pixels out is ours.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[CWDKD(ignore_index=ignore_index)])


def simkd(teacher: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """SimKD: the student's projected last map becomes the teacher's, whose classifier it ends in.

    Args:
        teacher: A trained network of a known family.
        path: Where the student, made with `lightning_kd.students.with_teacher_classifier`, is in the LightningModule.

    Returns:
        The callback; the task loss is left out.

    Raises:
        SetupError: If the teacher's family is not known.

    Source:
        Chen et al., arXiv:2203.14001.
    """
    term = SimKD(last_map_tap(unwrapped(teacher), "teacher"))
    return KnowledgeDistillation(teacher, student=path, objectives=[term], task_weight=0.0)


def vitkd(teacher: nn.Module, student: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """ViTKD: imitation at the first two blocks, masked generation behind the final norm, and NKD on the logits.

    Args:
        teacher: A trained vision transformer.
        student: The vision transformer that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Yang et al., arXiv:2209.02432.
    """
    blocks = place(ViTKD((), ()), teacher, student, first_and_last_blocks)
    return KnowledgeDistillation(teacher, student=path, objectives=[blocks, NKD(gamma=1.0)])


def feature_recalibration(teacher: nn.Module, student: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """FRD of SiT: every stage's tokens are recovered from the student's fewer ones; with the logits, both by weight 2.

    Args:
        teacher: The trained network before its tokens were slimmed.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback.

    Source:
        Zong et al., "Self-slimmed Vision Transformer", arXiv:2111.12624, which compares all layers; four stages are
        ours.
    """
    tokens = place(FRDKD((), ()), teacher, student, at_stages(EVERY_STAGE), pairs=4)
    return KnowledgeDistillation(teacher, student=path, objectives=[tokens, LogitKD(temperature=1.0, weight=2.0)])


def cka(teacher: nn.Module, student: nn.Module, *, path: str = "", weight: Weight = 1.0) -> KnowledgeDistillation:
    """CKA between the last stages, which need neither equal widths nor equal architectures.

    Args:
        teacher: A trained network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        weight: Factor of the term.

    Returns:
        The callback.

    Source:
        Kornblith et al., arXiv:1905.00414; its use as a loss is ours.
    """
    similarity = place(CKAKD((), (), weight=weight), teacher, student, at_stages([3]), pairs=1)
    return KnowledgeDistillation(teacher, student=path, objectives=[similarity])


def matched_features(teacher: nn.Module, *, path: str = "", top: int = 3) -> KnowledgeDistillation:
    """Features of the layers that are most similar when training starts; for any two networks.

    Args:
        teacher: A trained network.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        top: How many pairs of layers.

    Returns:
        The callback.

    Source:
        Ours; the similarity is that of Nguyen, Raghu and Kornblith, arXiv:2010.15327.
    """
    return KnowledgeDistillation(teacher, student=path, objectives=[FeatureKD.matched(top=top)])

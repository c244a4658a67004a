"""Recipes in which the student, or another student, is the teacher."""

from collections.abc import Mapping, Sequence
from typing import Literal

import lightning.pytorch as pl

from lightning_kd._checks import check_fraction
from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.families import stage_taps
from lightning_kd.first_step import Allowance
from lightning_kd.mutual import MutualLearning
from lightning_kd.objectives import FeatureKD, LogitKD, Objective, SelectiveKD
from lightning_kd.schedules import Ramp
from lightning_kd.taps import resolve_module
from lightning_kd.teachers import EMATeacher, PastTeacher

Order = Literal["together", "in_turn"]
ZERO: tuple[Allowance, ...] = ("zero",)


def momentum_distillation(
    *, path: str = "", momentum: float = 0.995, share: float = 0.4, warm_up_epochs: float = 1.0
) -> KnowledgeDistillation:
    """Momentum distillation: the target is mixed from the labels and what the student's moving average says.

    Args:
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        momentum: Of the average, from 0 to 1.
        share: Of the average in the target once warm-up is over, from 0 to 1.
        warm_up_epochs: Epochs in which its share grows from 0.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
        arXiv:2107.07651; from memory, checked against no code. For classifiers is ours.
    """
    check_fraction("share", share)
    term = LogitKD(temperature=1.0, weight=Ramp(0.0, share, over=warm_up_epochs))
    rest = Ramp(1.0, 1.0 - share, over=warm_up_epochs)
    return KnowledgeDistillation(EMATeacher(momentum), student=path, objectives=[term], task_weight=rest, allow=ZERO)


def progressive_self_distillation(epochs: int, *, path: str = "", share: float = 0.8) -> KnowledgeDistillation:
    """PS-KD: the target is mixed from the labels and what the student said an epoch ago, more of it in every epoch.

    Args:
        epochs: How many epochs training takes.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        share: Of the past in the target at the end, from 0 to 1.

    Returns:
        The callback.

    Raises:
        ValueError: If a value is out of range.

    Source:
        Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", arXiv:2006.12000; from memory,
        checked against no code.
    """
    check_fraction("share", share)
    term = LogitKD(temperature=1.0, weight=Ramp(0.0, share, over=epochs))
    rest = Ramp(1.0, 1.0 - share, over=epochs)
    return KnowledgeDistillation(PastTeacher(), student=path, objectives=[term], task_weight=rest)


def deep_mutual_learning(
    modules: Mapping[str, pl.LightningModule], *, path: str | Mapping[str, str] = "", order: Order = "together"
) -> MutualLearning:
    """Deep mutual learning: students learn each other's class scores beside their own task.

    Args:
        modules: The students by name, each as it would be trained alone.
        path: Where the network is in each; one for all, or by name.
        order: Whether they learn together or in turn, see `MutualLearning`.

    Returns:
        What is fitted in their place.

    Source:
        Zhang et al., "Deep Mutual Learning", arXiv:1706.00384.
    """
    return MutualLearning(modules, student=path, order=order)


def collaborative_students(
    modules: Mapping[str, pl.LightningModule],
    example_inputs: object,
    *,
    path: str | Mapping[str, str] = "",
    regions: int = 4,
    ignore_index: int = 255,
) -> MutualLearning:
    """`collaborative` for students with an optimiser each: every pixel and region teaches the student that is worse.

    Low layers become consistent in both directions, as directions of features behind learned projections.

    Args:
        modules: Segmentation networks of known families by name, each as it would be trained alone.
        example_inputs: An input of the students, from which projections are built.
        path: Where the network is in each; one for all, or by name.
        regions: Cells along each axis in which features are compared.
        ignore_index: Label of pixels that do not count.

    Returns:
        What is fitted in their place.

    Raises:
        SetupError: If the family of a network is not known.

    Source:
        Ours, after the publication that `selective` names.
    """
    stages = {
        name: stage_taps(resolve_module(module, path if isinstance(path, str) else path[name], name), name)
        for name, module in modules.items()
    }

    def terms(learner: str, other: str) -> Sequence[Objective]:
        own, others = stages[learner], stages[other]
        return [
            FeatureKD(own[0], others[0], normalization="l2", projection="always", name="low"),
            SelectiveKD(own[3], others[3], regions=regions, ignore_index=ignore_index),
        ]

    # Each direction is silent where the other student is the better one throughout.
    return MutualLearning(modules, student=path, objectives=terms, example_inputs=example_inputs, allow=ZERO)

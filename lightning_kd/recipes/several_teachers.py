"""Recipes for several teachers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from lightning_kd._checks import check_choice
from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.errors import SetupError
from lightning_kd.families import family_of, last_map_tap, stage_taps, tap_on
from lightning_kd.objectives import UNICKD, DiscriminatorKD, LogitKD, Objective
from lightning_kd.taps import Tap, resolve_module
from lightning_kd.teachers import EnsembleTeacher
from lightning_kd.teachers.frozen import unwrapped


def meal_v2(
    teachers: Sequence[nn.Module],
    *,
    path: str = "",
    adversary: Literal["none", "reversed", "joint"] = "reversed",
) -> KnowledgeDistillation:
    """MEAL V2: the mean of the teachers' probabilities is the only target, and a discriminator compares the logits.

    Start from a trained student, without weight decay, as published.

    Args:
        teachers: Trained classifiers of the student's label set; give those that see other images as `FrozenTeacher`.
        path: Where the student is in the LightningModule; ``""`` is the module itself.
        adversary: ``"reversed"``, ``"joint"`` as in the published code, see `DiscriminatorKD`, or ``"none"``.

    Returns:
        The callback; the task loss is left out.

    Raises:
        ValueError: If ``adversary`` is unknown.

    Source:
        Shen and Savvides, "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
        arXiv:2009.08453; the default adversary is ours.
    """
    check_choice("adversary", adversary, ("none", "reversed", "joint"))
    terms: list[Objective] = [LogitKD(temperature=1.0)]
    if adversary != "none":
        terms.append(DiscriminatorKD(adversary=adversary))
    return KnowledgeDistillation(EnsembleTeacher(teachers), student=path, objectives=terms, task_weight=0.0)


def unic(teachers: Mapping[str, nn.Module], student: nn.Module, *, path: str = "") -> KnowledgeDistillation:
    """UNIC: a vision transformer learns the class and patch tokens of several, without labels.

    Args:
        teachers: Trained plain vision transformers with a class token, by name; those that see other images as
            `FrozenTeacher`. All have as many patches as the student.
        student: The plain vision transformer with a class token that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.

    Returns:
        The callback; the task loss is left out.

    Raises:
        SetupError: If a network is no plain transformer of a known family.

    Source:
        Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", arXiv:2408.05088.
    """
    finals = {name: last_map_tap(unwrapped(network), name) for name, network in teachers.items()}
    places = {name: replace(tap, path=f"{name}.{tap.path}") for name, tap in finals.items()}
    term = UNICKD(_blocks(student), places)
    return KnowledgeDistillation(EnsembleTeacher(teachers), student=path, objectives=[term], task_weight=0.0)


def _blocks(student: nn.Module) -> list[Tap]:
    family = family_of(student)
    if family is None or family.kind != "isotropic":
        raise SetupError(f"`student` must be a plain transformer of a known family, got {type(student).__name__}.")
    container = stage_taps(student, "student")[-1].path.rpartition(".")[0]
    names = [name for name, _ in resolve_module(student, container, "student").named_children()]
    return [tap_on(student, f"{container}.{name}", "student") for name in names]

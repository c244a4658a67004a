"""Where a recipe distils: places of both networks' families, or pairs chosen by similarity."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from torch import nn

from lightning_kd.errors import SetupError
from lightning_kd.families import family_of, last_map_tap, stage_taps, tap_on
from lightning_kd.objectives.base import Matching, PairedObjective
from lightning_kd.pre_activation import pre_activation_tap
from lightning_kd.taps import Tap, resolve_module
from lightning_kd.teachers.frozen import unwrapped

Paired = TypeVar("Paired", bound=PairedObjective)
Role = Literal["student", "teacher"]
Finder = Callable[[nn.Module, Role], Sequence[Tap]]
EVERY_STAGE = (0, 1, 2, 3)
LAST_THREE = (1, 2, 3)


def at_stages(stages: Sequence[int]) -> Finder:
    """Finder of these of a network's four stages, 0 to 3."""
    if not stages or not all(-4 <= stage < 4 for stage in stages):
        raise SetupError(f"`stages` must be some of the four stages 0 to 3, got {tuple(stages)}.")
    return lambda network, role: [stage_taps(network, role)[stage] for stage in stages]


def place(
    objective: Paired, teacher: nn.Module, student: nn.Module, find: Finder, *, pairs: int | None = None
) -> Paired:
    """Pair ``objective`` at the places that ``find`` names in both networks.

    If the family of either network is unknown, pairs are chosen by CKA when training starts, with a warning.

    Args:
        objective: Whose pairs are set.
        teacher: The teacher, frozen or not.
        student: The student.
        find: Names the places in a network of a known family, told which of the two it is.
        pairs: How many pairs CKA chooses if a family is unknown; ``None`` takes 3.

    Returns:
        ``objective``.
    """
    networks: dict[Role, nn.Module] = {"student": student, "teacher": unwrapped(teacher)}
    unknown = [f"the {role} ({type(net).__name__})" for role, net in networks.items() if family_of(net) is None]
    if not unknown:
        return objective.pair(*([*find(network, role)] for role, network in networks.items()))
    top = 3 if pairs is None else pairs
    warnings.warn(
        f"the family of {' and '.join(unknown)} is not known, so {top} pair(s) of layers for {objective.name!r} are "
        f"chosen by CKA when training starts: to decide yourself, build {type(objective).__name__} with places.",
        stacklevel=3,
    )
    return objective.match(Matching(top=top))


def levels_of_review(network: nn.Module, role: Role, *, classified: bool) -> list[Tap]:
    """The last three stages, a convolutional teacher's before their last activation, and maybe what is classified."""
    family, taps = family_of(network), list(stage_taps(network, role)[1:])
    if role == "teacher" and family is not None and family.kind == "cnn":
        taps = [pre_activation_tap(network, tap.path) for tap in taps]
    if classified and family is not None and family.classifier is not None:
        taps.append(Tap(family.classifier, at="input"))
    return taps


def classifies_images(network: nn.Module) -> bool:
    """Whether a network of a known family classifies one vector per image, not pixels or nothing."""
    family = family_of(network)
    if family is None or family.classifier is None:
        return False
    return not isinstance(resolve_module(network, family.classifier), nn.Conv2d)


def first_and_last_blocks(network: nn.Module, role: Role) -> list[Tap]:
    """The first two blocks of a plain transformer and its last behind the norm; of others, the stages 0, 1 and 3."""
    family, taps = family_of(network), stage_taps(network, role)
    if family is None or family.kind != "isotropic":
        return [taps[0], taps[1], taps[3]]
    blocks = taps[3].path.rpartition(".")[0]
    return [*(tap_on(network, f"{blocks}.{index}", role) for index in (0, 1)), last_map_tap(network, role)]

"""Class and patch tokens of several vision transformers in one."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import cosine_smooth_l1, dropped_mean
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Progress, Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap

EPSILON = 1e-6
LAST_MOMENTUM = 0.001
KINDS = ("class", "patch")


def standardisation_rate(progress: Progress) -> float:
    """Share of a batch's statistics in the running ones: a cosine from 1 at the start to 0.001 at the end.

    Args:
        progress: How far training is.

    Returns:
        The share, from 0.001 to 1, dimensionless.

    Raises:
        SetupError: If the number of steps is not known.

    Example:
        >>> standardisation_rate(Progress(step=0, total_steps=10)), standardisation_rate(Progress(10, 0, 10))
        (1.0, 0.001)
    """
    if progress.total_steps is None:
        raise SetupError("UNICKD follows a schedule over all steps: give the Trainer max_epochs or max_steps.")
    done = min(progress.step / progress.total_steps, 1.0)
    return LAST_MOMENTUM + (1 - LAST_MOMENTUM) * (1 + math.cos(math.pi * done)) / 2


class Standardisation(nn.Module):
    """Normalises tokens by running means and deviations of each dimension, then updates these by the batch.

    They start at 0 and 1, so that the first batch stays as it is. Deviations are of the joint batch of all processes.

    Args:
        width: Dimensions of a token.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    @override
    def forward(self, tokens: Tensor, rate: float) -> Tensor:
        """Return ``(tokens - mean) / (std + 1e-6)`` by the statistics so far.

        Args:
            tokens: Shape ``(..., D)``.
            rate: Share of this batch in the statistics from now on, from 0 to 1.

        Returns:
            Same shape, at least float32.
        """
        tokens = tokens.detach().to(self.mean.dtype)
        normalised = (tokens - self.mean) / (self.std + EPSILON)
        mean, std = _statistics(tokens.flatten(0, -2))
        self.mean.lerp_(mean, rate)
        self.std.lerp_(std + EPSILON, rate)
        return normalised


class Ladder(nn.Module):
    """Projectors from every block of the student to one teacher's width, added up.

    Args:
        width: Of the student.
        teacher_width: Of the teacher.
        hidden: Hidden width of each block's projector, the last one's at the end.
    """

    def __init__(self, width: int, teacher_width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.rungs = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, teacher_width)) for inner in hidden
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    @override
    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Return the sum of all projections.

        Args:
            tokens: Of each block, shape ``(..., D)``.

        Returns:
            Shape ``(..., D_teacher)``.
        """
        return torch.stack([rung(block) for rung, block in zip(self.rungs, tokens, strict=True)]).sum(dim=0)


class UNICKD(Objective):
    r"""UNIC: one vision transformer learns the class and patch tokens of several at once.

    For each teacher and each kind of token, a ladder of projectors leads from all of the student's blocks to the
    teacher's width; the teacher's tokens are standardised by running statistics of each dimension. The loss of a
    sample and a teacher is the mean over both kinds of `cosine_smooth_l1`, patches averaged; `dropped_mean` joins the
    teachers. Which of them a sample keeps depends on the step and the process alone, so that a resumed run chooses the
    same.

    Args:
        student: Places of all of the student's blocks, in order, whose outputs are tokens with a class token first.
        teachers: Of each teacher its final tokens, behind the norm: a place in the `EnsembleTeacher`, as in
            ``"dino.norm"``, with as many patches as the student.
        hidden: Hidden width of the projectors.
        last_hidden: That of the last block's.
        drop: Chance of leaving a teacher out for a sample, unless it has the largest loss.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If places are missing; when building, if tokens have no class token or other patches.
        ValueError: If a width is not above 0 or ``drop`` is out of range.

    Source:
        Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", arXiv:2408.05088.

    Example:
        >>> term = UNICKD([f"blocks.{i}" for i in range(12)], {"dino": "dino.norm", "clip": "clip.norm"})
        >>> [tap.path for tap in term.teacher_taps]
        ['dino.norm', 'clip.norm']
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teachers: Mapping[str, str | Tap],
        *,
        hidden: int = 768,
        last_hidden: int = 3072,
        drop: float = 0.5,
        weight: Weight = 1.0,
        name: str = "unic",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("hidden", hidden)
        check_positive("last_hidden", last_hidden)
        check_fraction("drop", drop)
        self.student_taps = as_taps(student)
        self.places = {teacher: Tap.of(place) for teacher, place in teachers.items()}
        self.teacher_taps = tuple(self.places.values())
        if not self.student_taps or not self.places:
            raise SetupError("`student` and `teachers` must name a place each at least: blocks, and final tokens.")
        self.hidden = (hidden,) * (len(self.student_taps) - 1) + (last_hidden,)
        self.drop = drop
        self.prefixes: dict[Tap, int] = {}
        self.ladders = nn.ModuleDict()
        self.standardisations = nn.ModuleDict()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        own = [student.geometry(tap) for tap in self.student_taps]
        grids = {geometry.grid for geometry in own}
        for name, tap in self.places.items():
            geometry = teacher.geometry(tap)
            grids.add(geometry.grid)
            for kind in KINDS:
                self.ladders[f"{name}_{kind}"] = Ladder(own[0].width, geometry.width, self.hidden)
                self.standardisations[f"{name}_{kind}"] = Standardisation(geometry.width)
            self.prefixes[tap] = _prefix(tap, geometry.layout.axes, geometry.layout.prefix_tokens)
        for tap, geometry in zip(self.student_taps, own, strict=True):
            self.prefixes[tap] = _prefix(tap, geometry.layout.axes, geometry.layout.prefix_tokens)
        if len(grids) > 1:
            raise SetupError(
                f"`{self.name}` compares patch by patch, got grids {sorted(grids)}: give a teacher images of another "
                "size by its input_transform."
            )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        rate = standardisation_rate(step.progress)
        blocks = {kind: [self._tokens(student, tap, kind) for tap in self.student_taps] for kind in KINDS}
        losses = []
        for name, tap in self.places.items():
            of_kinds = []
            for kind in KINDS:
                target = self.standardisations[f"{name}_{kind}"](self._tokens(teacher, tap, kind), rate)
                predicted = self.ladders[f"{name}_{kind}"](blocks[kind])
                of_kinds.append(cosine_smooth_l1(predicted, target, reduction="none").mean(dim=1))
            losses.append(torch.stack(of_kinds).mean(dim=0))
        return dropped_mean(torch.stack(losses), probability=self.drop, generator=_generator(step.progress))

    def _tokens(self, observation: Observation, tap: Tap, kind: str) -> Tensor:
        """Class token ``(N, 1, D)``, or patch tokens ``(N, L, D)``."""
        tokens = observation.features[tap]
        if tokens.ndim != 3:
            raise ShapeError(f"`{tap.path}` must give tokens of shape (N, L, D), got {tuple(tokens.shape)}.")
        return tokens[:, :1] if kind == "class" else tokens[:, self.prefixes[tap] :]


def _prefix(tap: Tap, axes: str, prefix_tokens: int) -> int:
    if axes != "NLD" or prefix_tokens < 1:
        raise SetupError(
            f"`{tap.path}` must give tokens with a class token first, got layout {axes} with {prefix_tokens} prefix "
            "tokens: declare them, Tap(path, prefix_tokens=1), or tap another module."
        )
    return prefix_tokens


def _statistics(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased deviation of each dimension, over the rows of all processes."""
    count = _over_all(tokens.new_tensor(len(tokens)))
    mean = _over_all(tokens.sum(dim=0)) / count
    squares = _over_all((tokens - mean).square().sum(dim=0))
    return mean, (squares / (count - 1).clamp(min=1)).sqrt()


def _over_all(values: Tensor) -> Tensor:
    """Sum over all processes."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def _generator(progress: Progress) -> torch.Generator:
    rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return torch.Generator().manual_seed(progress.step * 65536 + rank)

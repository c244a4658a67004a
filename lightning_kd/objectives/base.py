"""What an objective is: taps on both sides, adapters between them, a loss, a weight and a name."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe
from lightning_kd.errors import SetupError
from lightning_kd.schedules import Weight, check_weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap

Places = str | Tap | Sequence[str | Tap]


class Objective(nn.Module, ABC):
    """One named term of the loss. Its parameters are the adapters: they train, and are never exported.

    Args:
        name: Name of the term, logged as ``kd/<name>``.
        weight: Factor of the term: a number, or a schedule over steps or epochs. While it is 0 the term is not
            computed.

    Attributes:
        needs_examples: Whether `build` must run, because there are adapters or features to look at.
        needs_teacher: Whether there must be a teacher; self-distillation needs none, and sees an empty observation.
        needs_teacher_output: Whether the teacher's output is read; if no objective does, the teacher runs up to its
            last tap only.

    Raises:
        ValueError: If ``name`` is not usable in a log key, or ``weight`` is negative or not finite.
    """

    student_taps: tuple[Tap, ...] = ()
    teacher_taps: tuple[Tap, ...] = ()
    needs_examples: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    needs_teacher_output: ClassVar[bool] = True

    def __init__(self, *, name: str, weight: Weight) -> None:
        super().__init__()
        if not name or not name.isidentifier():
            raise ValueError(f"`name` must be made of letters, digits and underscores, got {name!r}.")
        if not callable(weight):
            check_weight("weight", weight)
        self.name = name
        self.weight = weight

    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        """Choose the taps from the models themselves; objectives whose taps are given have nothing to do.

        Args:
            student: The student.
            teacher: The teacher.
        """

    def build(self, student: Probe, teacher: Probe) -> None:
        """Create the adapters, from one observed call of each model; most relation losses need none.

        Args:
            student: The student and what one call of it showed.
            teacher: The teacher, likewise.
        """

    @abstractmethod
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        """Return the unweighted term, a scalar.

        Args:
            student: One call of the student.
            teacher: The teacher's call on the same input.
            step: Labels, sample indices and progress of the step.

        Returns:
            The term, shape ``()``.
        """


@dataclass(frozen=True, slots=True)
class Matching:
    """How layer pairs are chosen by representational similarity, see `lightning_kd.similarity`.

    Attributes:
        top: How many of the most similar pairs to distil.
        samples: How many training samples the similarity is estimated from.
        monotone: Whether pairs keep the order of depth in both networks.
    """

    top: int = 3
    samples: int = 1024
    monotone: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        check_positive("top", self.top)
        if self.samples < 4:
            raise ValueError(f"`samples` must be at least 4, got {self.samples}.")


class PairedObjective(Objective):
    """An objective over pairs of taps, given by name or chosen by similarity.

    Args:
        student: Place or places in the student.
        teacher: As many places in the teacher.
        name: Name of the term.
        weight: Factor of the term.

    Attributes:
        needs_positions: Whether places must give maps or tokens; then only such layers are chosen by similarity.

    Raises:
        SetupError: If the numbers of places differ.
    """

    matching: Matching | None = None
    needs_positions: bool = False

    def __init__(self, student: Places, teacher: Places, *, name: str, weight: Weight) -> None:
        super().__init__(name=name, weight=weight)
        self.pair(student, teacher)

    def pair(self, student: Places, teacher: Places) -> Self:
        """Distil between these places from now on.

        Args:
            student: Place or places in the student.
            teacher: As many places in the teacher.

        Returns:
            The objective itself.
        """
        self.student_taps, self.teacher_taps = as_taps(student), as_taps(teacher)
        if len(self.student_taps) != len(self.teacher_taps):
            raise SetupError(
                f"`{self.name}` pairs student and teacher taps one to one, got {len(self.student_taps)} and "
                f"{len(self.teacher_taps)}: list a teacher tap for each student tap."
            )
        return self

    def match(self, matching: Matching) -> Self:
        """Let the pairs be chosen by similarity when training starts.

        Args:
            matching: How they are chosen.

        Returns:
            The objective itself.
        """
        self.matching = matching
        return self

    def features(self, student: Observation, teacher: Observation) -> list[tuple[Tensor, Tensor]]:
        """Features of each pair, as tapped."""
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        return [(student.features[s], teacher.features[t]) for s, t in pairs]


def as_taps(places: Places) -> tuple[Tap, ...]:
    """Read one place, or several, as taps."""
    return tuple(Tap.of(place) for place in ((places,) if isinstance(places, str | Tap) else places))

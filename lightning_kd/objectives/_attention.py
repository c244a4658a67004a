"""What objectives on attention share: finding the modules, pairing them, reading both."""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd._projections import QKV
from lightning_kd.adapters import Probe
from lightning_kd.attention import AttentionPair, AttentionReader, attention_paths
from lightning_kd.errors import SetupError
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.taps import Observation, Tap


class AttentionObjective(Objective):
    """An objective over pairs of attention modules, given by name or found in the blocks of both networks.

    Args:
        student: Attention modules of the student; ``None`` finds those of all blocks.
        teacher: Likewise for the teacher.
        max_tokens: Compare at most so many tokens of each sample, evenly spaced; ``None`` compares all.
        name: Name of the term.
        weight: Factor of the term.

    Raises:
        ValueError: If ``max_tokens`` is not above 0.
    """

    needs_teacher_output: ClassVar[bool] = False

    def __init__(
        self, student: Places | None, teacher: Places | None, *, max_tokens: int | None, name: str, weight: Weight
    ) -> None:
        super().__init__(name=name, weight=weight)
        if max_tokens is not None:
            check_positive("max_tokens", max_tokens)
        self._declared = (student, teacher)
        self.max_tokens = max_tokens
        self.pairs: list[AttentionPair] = []
        self.skips: list[tuple[int, int]] = []

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        models = (student, "student"), (teacher, "teacher")
        found = [
            as_taps(attention_paths(model, name) if declared is None else declared)
            for declared, (model, name) in zip(self._declared, models, strict=True)
        ]
        self.pairs = [
            AttentionPair(
                AttentionReader.of(student, s, "student"), AttentionReader.of(teacher, t, "teacher"), self.max_tokens
            )
            for s, t in self.choose(*found)
        ]
        self.student_taps = tuple(tap for pair in self.pairs for tap in pair.student.taps)
        self.teacher_taps = tuple(tap for pair in self.pairs for tap in pair.teacher.taps)

    def choose(self, student: Sequence[Tap], teacher: Sequence[Tap]) -> list[tuple[Tap, Tap]]:
        """Pair attention modules, each network's in order of depth; here one to one, the last if none are named.

        Args:
            student: Those of the student, given or found.
            teacher: Those of the teacher.

        Returns:
            The pairs.

        Raises:
            SetupError: If the modules cannot be paired.
        """
        sides = zip((student, teacher), self._declared, strict=True)
        student, teacher = (taps[-1:] if declared is None else taps for taps, declared in sides)
        if len(student) != len(teacher):
            raise SetupError(
                f"`{self.name}` pairs attention modules one to one, got {len(student)} of the student and "
                f"{len(teacher)} of the teacher: list one of the teacher for each of the student."
            )
        return list(zip(student, teacher, strict=True))

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        self.skips = [pair.skip(student, teacher) for pair in self.pairs]

    def projections(self, student: Observation, teacher: Observation) -> list[tuple[QKV, QKV]]:
        """Queries, keys and values of each pair."""
        return [pair.read(student, teacher, skip=skip) for pair, skip in zip(self.pairs, self.skips, strict=True)]

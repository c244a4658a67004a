"""What objectives over pairs of feature maps share."""

from torch import Tensor
from typing_extensions import override

from lightning_kd.adapters import Geometry, Probe
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.taps import Observation


class MapObjective(PairedObjective):
    """A paired objective that reads every feature channels first, whatever the networks' layouts."""

    needs_teacher_output = False

    def __init__(self, student: Places, teacher: Places, *, name: str, weight: Weight) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        self.geometries: list[tuple[Geometry, Geometry]] = []

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = list(zip(self.student_taps, self.teacher_taps, strict=True))
        if not pairs:
            raise SetupError(f"`{self.name}` needs at least one pair of places, got none.")
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in pairs]
        for s, t in self.geometries:
            if {len(s.grid), len(t.grid)} == {1, 2}:
                raise LayoutError(
                    f"`{self.name}` pairs a map and a sequence of frames, which have no common grid: student {s.grid}, "
                    f"teacher {t.grid}; tap pooled features instead."
                )

    def maps(self, student: Observation, teacher: Observation) -> list[tuple[Tensor, Tensor]]:
        """Features of each pair, shape ``(N, C, *grid)``, prefix tokens dropped."""
        features = zip(self.geometries, self.features(student, teacher), strict=True)
        return [(s_is.layout.channels_first(s), t_is.layout.channels_first(t)) for (s_is, t_is), (s, t) in features]

"""What objectives share that bring the student's features to the teacher's width by a learned linear layer."""

from torch import nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Geometry, Probe, Projection, projection_of
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight


class ProjectedObjective(PairedObjective):
    """Pairs of features with the geometry of both, and a linear layer for each student's.

    Args:
        student: Place or places in the student.
        teacher: As many places in the teacher.
        projection: ``"auto"`` projects only if the widths differ, ``"always"`` even if not, ``"none"`` never.
        name: Name of the term.
        weight: Factor of the term.
    """

    def __init__(self, student: Places, teacher: Places, *, projection: Projection, name: str, weight: Weight) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_choice("projection", projection, ("auto", "always", "none"))
        self.wanted: Projection = projection
        self.geometries: list[tuple[Geometry, Geometry]] = []
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in pairs]
        self.adapters = nn.ModuleList(
            projection_of(s.width, t.width, projection=self.wanted) for s, t in self.geometries
        )

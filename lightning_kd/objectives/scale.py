"""Distillation of a transformer's last map into any student, in two views and through the teacher's own last stage."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_not_negative, check_positive
from lightning_kd.adapters import Geometry, Probe
from lightning_kd.adapters.cross_attention import SHARPNESS, CrossAttentionProjector
from lightning_kd.errors import LayoutError, SetupError
from lightning_kd.families import stage_taps
from lightning_kd.losses import view_distance
from lightning_kd.losses.scale import View
from lightning_kd.objectives.base import Objective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation
from lightning_kd.teachers.tail import TeacherTail, with_patches

Pair = tuple[float, float]
# Two programs of one computation differ by rounding; another computation differs by much more.
_SAME = 1e-3


class ScaleKD(Objective):
    r"""The teacher's last map, learnt from two stages of the student in two views by cross-attention projectors.

    .. math::
        L = \sum_{v} \sum_{i \in \{3, 4\}} a_{v,i} \, d_v(A_{v,i}, B), \qquad
        A_{v,3} = \mathrm{tail}(\mathrm{CAP}_{v,3}(F_3)), \quad A_{v,4} = \mathrm{CAP}_{v,4}(F_4)

    with :math:`d_v` `view_distance` in the spatial and the frequency view and :math:`B` the teacher's last map. What is
    projected from the student's third stage passes through the teacher's own last stage, whose weights stay: gradients
    flow through it. The queries of :math:`\mathrm{CAP}_{v,4}` are :math:`A_{v,3}`, so that the last stage's term trains
    the third stage's projector too, or are learned. Distil the class scores with another objective.

    Patches that enter the last stage of a transformer with prefix tokens go with those that the teacher itself has
    there for the same image.

    Args:
        student: Two places in the student, its third and its last stage; ``None`` takes them from its family.
        heads: Attention heads of the projectors of the third and the last stage; they must divide the teacher's widths.
        self_query: Whether the last stage's queries are learned instead of taken from the third stage.
        spatial_weights: Weight of the spatial view at the third and the last stage.
        frequency_weights: Weight of the frequency view at the third and the last stage.
        sharpness: Factor of the projectors' attention scores, above 0, dimensionless.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: At setup, if the student's stages or the teacher's last stage are not known, or the teacher's last
            stage, run alone, does not do what it does within the teacher.
        LayoutError: At setup, if a feature is no map and no patch tokens.
        ShapeError: At setup, if ``heads`` does not divide a width of the teacher.
        ValueError: If a weight is negative, or all are zero, or ``sharpness`` is not above 0.

    Source:
        Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", arXiv:2411.06786, in the form of
        its code. Published: 16 and 24 heads for Swin-L, 3 and 6 for Swin-S, whose frequency weights are (0.06, 0). The
        terms are sums over positions, so that these weights fit a 7x7 map; for EVA-L with its 16x16 patches they are
        0.016 and 0.008, and the sharpness is 0.2 (to ResNet-50) or 1 (to ViT-B). Where both stages are distilled, the
        code takes the queries from the third one even if it is told to learn them. Teachers that are no Swin or EVA-L,
        what of a plain transformer is its last stage, and the prefix tokens are ours.

    Example:
        >>> ScaleKD(heads=(16, 24)).heads
        (16, 24)
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places | None = None,
        *,
        heads: tuple[int, int] = (8, 8),
        self_query: bool = False,
        spatial_weights: Pair = (0.08, 0.08),
        frequency_weights: Pair = (0.06, 0.06),
        sharpness: float = SHARPNESS,
        weight: Weight = 1.0,
        name: str = "scale",
    ) -> None:
        super().__init__(name=name, weight=weight)
        check_positive("sharpness", sharpness)
        for argument, values in (("spatial_weights", spatial_weights), ("frequency_weights", frequency_weights)):
            for value in values:
                check_not_negative(argument, value)
        if not any((*spatial_weights, *frequency_weights)):
            raise ValueError("`spatial_weights` or `frequency_weights` must hold a number above 0, got zeros only.")
        self.heads = heads
        self.self_query = self_query
        self.sharpness = sharpness
        self._weights: dict[View, Pair] = {"spatial": spatial_weights, "frequency": frequency_weights}
        self._declared = student
        self.third = nn.ModuleDict()
        self.fourth = nn.ModuleDict()

    @override
    def locate(self, student: nn.Module, teacher: nn.Module) -> None:
        places = stage_taps(student, "student")[-2:] if self._declared is None else as_taps(self._declared)
        if len(places) != 2:
            raise SetupError(
                f"`{self.name}` needs two places in the student, its third and its last stage, got {len(places)}."
            )
        self._tail = TeacherTail(teacher)
        self.student_taps = places
        self.teacher_taps = self._tail.start, self._tail.end

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        self._start, self._end = (teacher.geometry(tap) for tap in self.teacher_taps)
        self._check_tail(teacher.observation)
        third, fourth = (student.geometry(tap) for tap in self.student_taps)
        for view, weights in self._weights.items():
            # Only what counts, or asks for what counts.
            if weights[0] or (weights[1] and not self.self_query):
                self.third[view] = self._projector(third, self._start, self.heads[0], learned=True)
            if weights[1]:
                self.fourth[view] = self._projector(fourth, self._end, self.heads[1], learned=self.self_query)

    def _projector(self, source: Geometry, goal: Geometry, heads: int, *, learned: bool) -> CrossAttentionProjector:
        if len(goal.grid) != 2:
            raise LayoutError(f"`{self.name}` needs maps or patch tokens of the teacher, got grid {goal.grid}.")
        return CrossAttentionProjector(
            source,
            width=goal.width,
            grid=goal.plane,
            heads=heads,
            learned_queries=learned,
            sharpness=self.sharpness,
        )

    def _check_tail(self, teacher: Observation) -> None:
        """Refuse a teacher whose last stage takes more than the tensor in front of it."""
        start, end = (teacher.features[tap].float() for tap in self.teacher_taps)
        with torch.no_grad():
            alone = self._tail(start).float()
        if alone.shape != end.shape or (alone - end).norm() > _SAME * end.norm():
            raise SetupError(
                f"the teacher's last stage, run alone from {self._tail.start.path!r}, does not give its last map: it "
                "takes more than one tensor there. Choose another teacher for ScaleKD."
            )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        third, fourth = (student.features[tap] for tap in self.student_taps)
        own, last = (teacher.features[tap] for tap in self.teacher_taps)
        goal = self._end.layout.channels_first(last)
        terms = []
        for view, (third_weight, fourth_weight) in self._weights.items():
            perceived = None
            if view in self.third:
                perceived = self._perceived(own, self.third[view](third))
                terms.append(third_weight * view_distance(perceived, goal, view=view))
            if view in self.fourth:
                projected = self.fourth[view](fourth, None if self.self_query else perceived)
                terms.append(fourth_weight * view_distance(projected, goal, view=view))
        return torch.stack(terms).sum()

    def _perceived(self, own: Tensor, patches: Tensor) -> Tensor:
        """What the teacher's last stage makes of ``patches``, shape ``(N, C, H, W)``."""
        return self._end.layout.channels_first(self._tail(with_patches(own, patches, self._start.layout)))

    @override
    def extra_repr(self) -> str:
        return (
            f"heads={self.heads}, self_query={self.self_query}, spatial_weights={self._weights['spatial']}, "
            f"frequency_weights={self._weights['frequency']}, sharpness={self.sharpness}, weight={self.weight}"
        )

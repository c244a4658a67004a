"""Distillation of every level of the teacher from all deeper levels of the student."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe
from lightning_kd.adapters.fusion import AttentionMerge, DeepToShallowFusion, fused_context
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight, warm_up
from lightning_kd.step import Step
from lightning_kd.taps import Observation

WIDEST = 512


class ReviewKD(MapObjective):
    """Knowledge review: each level of the teacher is taught to the fusion of that and all deeper student levels.

    The student's levels are fused from deep to shallow by attention (`DeepToShallowFusion`, `AttentionMerge`), and
    compared with the teacher's by `hierarchical_context`; the term is the sum over the levels. A place whose feature is
    pooled, ``(N, C)``, is a level of one cell, compared by its mean squared error. Published are the stages and, as the
    deepest level, the pooled feature; the teacher's stages are read before their last activation
    (`lightning_kd.pre_activation.pre_activation_tap`), the student's after it.

    Args:
        student: Places of the student's levels, from shallow to deep.
        teacher: As many places in the teacher.
        middle: Width in which levels are fused; ``None`` takes that of the student's deepest level, at most 512.
        weight: Factor of the term. The default rises over 20 epochs to 1, the published weight of most pairs; it is 5
            for ResNet32x4 and ResNet8x4: ``Ramp(0.25, 5.0, over=19)``.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``middle`` is not above 0.

    Source:
        Chen et al., "Distilling Knowledge via Knowledge Review", arXiv:2104.09044, in the form of the CIFAR-100
        baselines. Resizing fused maps to another grid of the teacher, and transformers' tokens as maps, are ours.

    Example:
        >>> objective = ReviewKD(["layer1", "layer2", "global_pool"], ["stages.1", "stages.2", "head.global_pool"])
        >>> from lightning_kd.schedules import Progress
        >>> [objective.weight(Progress(epoch=epoch)) for epoch in (0, 19, 100)]
        [0.05, 1.0, 1.0]
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        middle: int | None = None,
        weight: Weight = warm_up,
        name: str = "review",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        if middle is not None:
            check_positive("middle", middle)
        self.middle = middle

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        students, teachers = zip(*self.geometries, strict=True)
        middle = min(WIDEST, students[-1].width) if self.middle is None else self.middle
        self.fusion = DeepToShallowFusion(students, teachers, middle=middle, merger=AttentionMerge)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return fused_context(self.fusion, self.maps(student, teacher))

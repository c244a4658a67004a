"""TransKD's distillation of feature maps."""

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Probe
from lightning_kd.adapters.fusion import DeepToShallowFusion, fused_context
from lightning_kd.adapters.transkd import SelectiveMerge
from lightning_kd.objectives._maps import MapObjective
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class CSFKD(MapObjective):
    """Cross selective fusion: each stage of the teacher is taught to the fusion of that and all deeper student stages.

    The feature part of TransKD; its patch embeddings are `PatchEmbeddingKD`. The student's stages are fused from deep
    to shallow by selective-kernel attention (`DeepToShallowFusion`, `SelectiveMerge`) and compared with the teacher's
    by `hierarchical_context`; the term is the sum over the stages. Published are the four stages of a hierarchical
    transformer, each after its LayerNorm.

    Args:
        student: Places of the student's stages, from shallow to deep.
        teacher: As many places in the teacher.
        middle: Width in which stages are fused.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``middle`` is not above 0.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393. Networks other than hierarchical transformers, and resizing to another grid of the teacher,
        are ours.

    Example:
        >>> stages = [f"stages.{stage}" for stage in range(4)]
        >>> CSFKD(stages, stages).middle
        64
    """

    def __init__(
        self, student: Places, teacher: Places, *, middle: int = 64, weight: Weight = 1.0, name: str = "csf"
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_positive("middle", middle)
        self.middle = middle

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        students, teachers = zip(*self.geometries, strict=True)
        self.fusion = DeepToShallowFusion(students, teachers, middle=self.middle, merger=SelectiveMerge)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        return fused_context(self.fusion, self.maps(student, teacher))

"""Distillation of how the samples of a batch relate: SP, RKD, PKT and CC."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Align, Probe
from lightning_kd.losses import (
    correlation_congruence,
    probabilistic_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
)
from lightning_kd.losses.relations import CongruenceVariant
from lightning_kd.objectives._batch_relation import BatchRelation
from lightning_kd.objectives.base import Places
from lightning_kd.schedules import Weight, check_weight
from lightning_kd.taps import Observation


class SPKD(BatchRelation):
    """Similarity-preserving distillation: samples that activate the teacher alike shall activate the student alike.

    Compares the whole feature, every position of the grid; no adapter, any widths and grids. A batch of one sample
    gives a term of zero.

    Args:
        student: Place or places in the student: module paths or taps, usually the last map.
        teacher: As many places in the teacher.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682; weight of its CIFAR-100 runs.

    Example:
        >>> SPKD("layer4", "blocks.11").weight
        3000.0
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        gather: bool = False,
        weight: Weight = 3000.0,
        name: str = "sp",
    ) -> None:
        super().__init__(student, teacher, gather=gather, name=name, weight=weight)

    @override
    def examples(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        return student, teacher

    @override
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return similarity_preserving(student, teacher)


class RKD(BatchRelation):
    """Relational distillation: distances between samples, and angles at them, of features averaged over the grid.

    No adapter, any widths. Time grows with the cube of the batch, memory with its square. A batch of one sample gives
    a term of zero.

    Args:
        student: Place or places in the student: module paths or taps, usually the last feature.
        teacher: As many places in the teacher.
        distance_weight: Factor of the distances.
        angle_weight: Factor of the angles.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If a weight is negative or not finite.

    Source:
        Park et al., "Relational Knowledge Distillation", arXiv:1904.05068; weights of its CIFAR-100 runs.

    Example:
        >>> RKD("layer4", "blocks.11")
        RKD(distance_weight=25.0, angle_weight=50.0, gather=False)
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        gather: bool = False,
        weight: Weight = 1.0,
        name: str = "rkd",
    ) -> None:
        super().__init__(student, teacher, gather=gather, name=name, weight=weight)
        self.distance_weight = check_weight("distance_weight", distance_weight)
        self.angle_weight = check_weight("angle_weight", angle_weight)

    @override
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        distances = self.distance_weight * relational_distance(student, teacher)
        return distances + self.angle_weight * relational_angle(student, teacher)

    @override
    def extra_repr(self) -> str:
        return f"distance_weight={self.distance_weight}, angle_weight={self.angle_weight}, gather={self.gather}"


class PKTKD(BatchRelation):
    """Probabilistic knowledge transfer: each sample's distribution of affinities to the batch.

    Of features averaged over the grid; no adapter, any widths. A batch of one sample gives a term of zero.

    Args:
        student: Place or places in the student: module paths or taps, usually the last feature.
        teacher: As many places in the teacher.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv:1803.10837;
        weight of its CIFAR-100 runs.

    Example:
        >>> PKTKD("layer4", "blocks.11").weight
        30000.0
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        gather: bool = False,
        weight: Weight = 30000.0,
        name: str = "pkt",
    ) -> None:
        super().__init__(student, teacher, gather=gather, name=name, weight=weight)

    @override
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return probabilistic_transfer(student, teacher)


class CCKD(BatchRelation):
    """Correlation congruence between the samples of a batch, of features averaged over the grid.

    The ``"code"`` form compares element by element: a learned projection brings the student to the teacher's width
    where they differ. The ``"paper"`` form needs no adapter. A batch of one sample gives a term of zero.

    Args:
        student: Place or places in the student: module paths or taps, usually the last feature.
        teacher: As many places in the teacher.
        variant: ``"code"`` or ``"paper"``, see `lightning_kd.losses.correlation_congruence`.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term; the default belongs to ``"code"``.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``variant`` is unknown.

    Source:
        Peng et al., "Correlation Congruence for Knowledge Distillation", arXiv:1904.01802, see
        `lightning_kd.losses.correlation_congruence`. The code behind the published weight embeds both sides by learned
        linear maps to 128 numbers, which agree best at zero; that the teacher's feature is the target instead, and the
        projection to its width, are ours.

    Example:
        >>> CCKD("layer4", "blocks.11").weight
        0.02
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        variant: CongruenceVariant = "code",
        gather: bool = False,
        weight: Weight = 0.02,
        name: str = "cc",
    ) -> None:
        super().__init__(student, teacher, gather=gather, name=name, weight=weight)
        check_choice("variant", variant, ("code", "paper"))
        self.variant: CongruenceVariant = variant
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        super().build(student, teacher)
        if self.variant == "code":
            self.adapters = nn.ModuleList(Align(*pair) for pair in self.geometries)

    @override
    def read(self, student: Observation, teacher: Observation) -> list[tuple[Tensor, Tensor]]:
        if self.variant == "paper":
            return super().read(student, teacher)
        return [align(s, t) for align, (s, t) in zip(self.adapters, self.features(student, teacher), strict=True)]

    @override
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation_congruence(student, teacher, variant=self.variant)

    @override
    def extra_repr(self) -> str:
        return f"variant={self.variant!r}, gather={self.gather}"

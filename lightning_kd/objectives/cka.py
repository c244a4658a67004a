"""Distillation of the geometry of representations: centred kernel alignment."""

from typing import Literal

from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.layout import common_grid
from lightning_kd.losses import cka_loss
from lightning_kd.losses._gram import Kernel
from lightning_kd.objectives._batch_relation import BatchRelation
from lightning_kd.objectives.base import Matching, Places
from lightning_kd.schedules import Weight

Rows = Literal["samples", "positions"]
MAX_ROWS = 1024


class CKAKD(BatchRelation):
    """One minus the centred kernel alignment of student and teacher features.

    CKA compares how two layers arrange the same examples, so it needs no adapter and no equal widths: the natural
    objective across architectures. Over several pairs the term is their mean.

    A batch too small to be compared (fewer than 4 rows for the unbiased
    estimator, 3 for the biased) gives a term of exactly zero, as happens with the last batch of an epoch.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether to use the unbiased estimator of HSIC; the biased one is close to 1 for any two features
            with more channels than rows.
        bandwidth: Of the RBF kernel, as a fraction of the median distance; ``None`` takes 1.
        rows: What the examples are: ``"samples"`` (features averaged over the grid), or ``"positions"`` (every cell of
            the common grid of every sample, at most 1024 evenly spaced ones per rank).
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If ``kernel`` or ``rows`` is unknown.

    Source:
        Kornblith et al., "Similarity of Neural Network Representations Revisited", arXiv:1905.00414; unbiased form:
        Nguyen, Raghu and Kornblith, arXiv:2010.15327.

    Example:
        >>> CKAKD.matched(top=3).matching.top
        3
    """

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        kernel: Kernel = "linear",
        unbiased: bool = True,
        bandwidth: float | None = None,
        rows: Rows = "samples",
        gather: bool = False,
        weight: Weight = 1.0,
        name: str = "cka",
    ) -> None:
        super().__init__(student, teacher, gather=gather, name=name, weight=weight)
        check_choice("kernel", kernel, ("linear", "rbf"))
        check_choice("rows", rows, ("samples", "positions"))
        self.kernel = kernel
        self.unbiased = unbiased
        self.bandwidth = bandwidth
        self.rows = rows

    @classmethod
    def matched(
        cls,
        *,
        top: int = 3,
        samples: int = 1024,
        monotone: bool = True,
        kernel: Kernel = "linear",
        weight: Weight = 1.0,
        name: str = "cka",
    ) -> "CKAKD":
        """Distil between the layers that are most similar when training starts; no layer is named.

        Args:
            top: How many pairs.
            samples: How many training samples the similarity is estimated from.
            monotone: Whether pairs keep the order of depth.
            kernel: As in the constructor.
            weight: Factor of the term.
            name: Name of the term.

        Returns:
            The objective; its pairs are known after `Distiller.build`.
        """
        return cls((), (), kernel=kernel, weight=weight, name=name).match(Matching(top, samples, monotone))

    @override
    def examples(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.rows == "samples":
            return super().examples(student, teacher)
        student, teacher = common_grid(student, teacher)
        return _positions(student), _positions(teacher)

    @override
    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        if len(student) < (4 if self.unbiased else 3):
            return student[:0].float().sum()
        return cka_loss(student, teacher, kernel=self.kernel, unbiased=self.unbiased, bandwidth=self.bandwidth)


def _positions(feature: Tensor) -> Tensor:
    rows = feature.movedim(1, -1).flatten(0, -2)
    return rows[:: -(-len(rows) // MAX_ROWS)]

"""Distillation of the geometry of representations: centred kernel alignment."""

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.adapters import Geometry, Probe
from lightning_kd.layout import common_grid, pooled
from lightning_kd.losses import cka_loss
from lightning_kd.losses._gram import Kernel
from lightning_kd.objectives.base import Matching, PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation

Rows = Literal["samples", "positions"]
MAX_ROWS = 1024


class CKAKD(PairedObjective):
    """One minus the centred kernel alignment of student and teacher features.

    CKA compares how two layers arrange the same examples, so it needs no adapter and no equal widths: the natural
    objective across architectures. Over several pairs the term is their mean.

    Under DDP each rank compares its own samples. A batch too small to be compared (fewer than 4 rows for the unbiased
    estimator, 3 for the biased) gives a term of exactly zero, as happens with the last batch of an epoch.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        kernel: ``"linear"`` or ``"rbf"``.
        unbiased: Whether to use the unbiased estimator of HSIC; the biased one is close to 1 for any two features
            with more channels than rows.
        bandwidth: Of the RBF kernel, as a fraction of the median distance; ``None`` takes 1.
        rows: What the examples are: ``"samples"`` (features averaged over the grid), or ``"positions"`` (every cell of
            the common grid of every sample, at most 1024 evenly spaced ones).
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

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        kernel: Kernel = "linear",
        unbiased: bool = True,
        bandwidth: float | None = None,
        rows: Rows = "samples",
        weight: Weight = 1.0,
        name: str = "cka",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_choice("kernel", kernel, ("linear", "rbf"))
        check_choice("rows", rows, ("samples", "positions"))
        self.kernel = kernel
        self.unbiased = unbiased
        self.bandwidth = bandwidth
        self.rows = rows
        self.geometries: list[tuple[Geometry, Geometry]] = []

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
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        self.geometries = [(student.geometry(s), teacher.geometry(t)) for s, t in pairs]

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        features = zip(self.geometries, self.features(student, teacher), strict=True)
        terms = [
            self._term(s_geometry.layout.channels_first(s), t_geometry.layout.channels_first(t))
            for (s_geometry, t_geometry), (s, t) in features
        ]
        return torch.stack(terms).mean()

    def _term(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.rows == "positions":
            student, teacher = (_positions(feature) for feature in common_grid(student, teacher))
        else:
            student, teacher = pooled(student), pooled(teacher)
        if len(student) < (4 if self.unbiased else 3):
            return student[:0].float().sum()
        return cka_loss(student, teacher, kernel=self.kernel, unbiased=self.unbiased, bandwidth=self.bandwidth)


def _positions(feature: Tensor) -> Tensor:
    rows = feature.movedim(1, -1).flatten(0, -2)
    return rows[:: -(-len(rows) // MAX_ROWS)]

"""Distillation by mutual information between features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_positive
from lightning_kd.adapters import Geometry, Probe
from lightning_kd.distributed import joint_batch
from lightning_kd.layout import pooled
from lightning_kd.losses import mutual_information_loss
from lightning_kd.losses._common import without_autocast
from lightning_kd.objectives.base import PairedObjective, Places
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation


class MIKD(PairedObjective):
    r"""Maximises a lower bound on the mutual information between student and teacher features (MI-alpha).

    A critic learns with the student to tell which teacher feature belongs to which student feature. Critic and baseline
    are ours: the score is the cosine of two learned linear embeddings over ``temperature``, which bounds the
    exponentials, and the logarithm of the baseline is a learned linear function of the teacher's feature. Features are
    averaged over their grid; to distil logits, tap the classifier. Over several pairs the term is their mean. It is
    minus the bound, and so may be negative.

    A single sample gives a term of exactly zero, as may happen with the last batch of an epoch.

    Args:
        student: Place or places in the student: module paths or taps.
        teacher: As many places in the teacher.
        alpha: Share of the batch in the baseline, from 0 (less bias) to 1 (less variance, close to InfoNCE).
        width: Width of the embeddings.
        temperature: Divisor of the cosines, above 0, dimensionless.
        gather: Whether the batch is that of all ranks, with gradient, instead of each rank's own.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ.
        ValueError: If an option is out of range.

    Source:
        The bound: Poole et al., "On Variational Bounds of Mutual Information", arXiv:1905.06922. ``alpha`` and the
        weight are ours too, as those of the method's paper are not known.

    Example:
        >>> MIKD("fc", "head", alpha=0.1).alpha
        0.1
    """

    needs_teacher_output = False

    def __init__(
        self,
        student: Places,
        teacher: Places,
        *,
        alpha: float = 0.5,
        width: int = 128,
        temperature: float = 0.1,
        gather: bool = False,
        weight: Weight = 1.0,
        name: str = "mi",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_fraction("alpha", alpha)
        check_positive("width", width)
        check_positive("temperature", temperature)
        self.alpha = alpha
        self.width = width
        self.temperature = temperature
        self.gather = gather
        self.critics = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        geometries = ((student.geometry(s), teacher.geometry(t)) for s, t in pairs)
        self.critics = nn.ModuleList(
            _Critic(s, t, width=self.width, temperature=self.temperature, gather=self.gather) for s, t in geometries
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        pairs = zip(self.critics, self.features(student, teacher), strict=True)
        return torch.stack([self._term(*critic(*features)) for critic, features in pairs]).mean()

    def _term(self, scores: Tensor, log_baseline: Tensor) -> Tensor:
        if len(scores) < 2:
            return scores[:0].sum()
        return mutual_information_loss(scores, log_baseline, alpha=self.alpha)


class _Critic(nn.Module):
    """Score of each student sample with each teacher sample, and the logarithm of each teacher sample's baseline."""

    def __init__(self, student: Geometry, teacher: Geometry, *, width: int, temperature: float, gather: bool) -> None:
        super().__init__()
        self.layouts = student.layout, teacher.layout
        self.temperature = temperature
        self.gather = gather
        self.student = nn.Linear(student.width, width)
        self.teacher = nn.Linear(teacher.width, width)
        self.baseline = nn.Linear(teacher.width, 1)

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        features = zip(self.layouts, (student, teacher), strict=True)
        rows = (pooled(layout.channels_first(feature)) for layout, feature in features)
        student, teacher = joint_batch(*rows, gather=self.gather)
        s, t = (F.normalize(rows.float(), dim=1) for rows in (self.student(student), self.teacher(teacher)))
        with without_autocast(s):
            scores = s @ t.T / self.temperature
        return scores, self.baseline(teacher).squeeze(1)

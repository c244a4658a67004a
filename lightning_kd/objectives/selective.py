"""Distillation of dense predictions only where the other network is right more: from a teacher, and between peers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.adapters import Align, Probe
from lightning_kd.dense import labels_on
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.layout import common_grid
from lightning_kd.losses import cosine_distance, selective_pixel_kl, selective_region_cosine
from lightning_kd.losses.selective import IGNORE_INDEX, REGIONS
from lightning_kd.objectives.base import Objective, PairedObjective, Places, as_taps
from lightning_kd.schedules import Weight
from lightning_kd.step import Step
from lightning_kd.taps import Observation, Tap, pick_tensor

Output = int | str | None


class Transfer(nn.Module):
    """One direction of selective distillation: class scores at pixels, features at regions.

    Scores are averaged to the coarser of the two grids, where labels are read at the nearest pixel. Features are
    averaged to their coarser grid, and a 1x1 projection brings the student's to the teacher's width.

    Args:
        adapters: One per pair of features, student first.
        pixels: Whether scores are transferred.
        regions: Cells along each axis in which features are compared.
        ignore_index: Class index that marks a pixel without a label.
    """

    def __init__(self, adapters: Sequence[Align], *, pixels: bool, regions: int, ignore_index: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)
        self.pixels = pixels
        self.regions = regions
        self.ignore_index = ignore_index

    @override
    def forward(
        self, features: Sequence[tuple[Tensor, Tensor]], logits: tuple[Tensor, Tensor], labels: Tensor
    ) -> Tensor:
        """Return `selective_pixel_kl` plus the mean of `selective_region_cosine` over the pairs.

        Args:
            features: Features of each pair as tapped, student first.
            logits: Class scores of student and teacher, shape ``(N, K, *grid)``, each on its own grid.
            labels: Class indices, or mixed labels, of the batch.

        Returns:
            The sum, shape ``()``.
        """
        student, teacher = common_grid(*_of_one_label_set(*logits))
        labels = labels_on(labels, tuple(student.shape[2:]))
        terms = []
        if self.pixels:
            terms.append(selective_pixel_kl(student, teacher, labels, ignore_index=self.ignore_index))
        for align, pair in zip(self.adapters, features, strict=True):
            s, t = align(*pair)
            settings = {"regions": self.regions, "ignore_index": self.ignore_index}
            terms.append(selective_region_cosine(s, t, student, teacher, labels, **settings) / len(features))
        return torch.stack(terms).sum()


class SelectiveKD(PairedObjective):
    """Selective distillation from a frozen teacher: only where its cross-entropy is lower than the student's.

    For class scores the choice is made at each pixel (`selective_pixel_kl`), for features in each of ``regions`` x
    ``regions`` cells of the image (`selective_region_cosine`); the term is the sum of both. Labels come from the batch,
    see `Step`.

    Args:
        student: Place or places in the student whose features are compared; none compares the scores alone.
        teacher: As many places in the teacher.
        regions: Cells along each axis; no more than the coarsest grid has.
        pixels: Whether scores are transferred.
        ignore_index: Class index that marks a pixel without a label.
        student_output: Index or key of the logits in the student's output; ``None`` takes the usual one.
        teacher_output: Likewise for the teacher.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ, or there is nothing to transfer.
        ValueError: If ``regions`` is not above 0.

    Source:
        Ours, after the selection in Zhu et al., "A Good Student is Cooperative and Reliable: CNN-Transformer
        Collaborative Learning for Semantic Segmentation", arXiv:2307.12574, whose formulas are not confirmed.

    Example:
        >>> SelectiveKD("layer4", "stages.3", regions=8, pixels=False).name
        'selective'
    """

    needs_positions = True

    def __init__(
        self,
        student: Places = (),
        teacher: Places = (),
        *,
        regions: int = REGIONS,
        pixels: bool = True,
        ignore_index: int = IGNORE_INDEX,
        student_output: Output = None,
        teacher_output: Output = None,
        weight: Weight = 1.0,
        name: str = "selective",
    ) -> None:
        super().__init__(student, teacher, name=name, weight=weight)
        check_positive("regions", regions)
        _check_content(self.student_taps, pixels)
        self.regions = regions
        self.pixels = pixels
        self.ignore_index = ignore_index
        self.student_output = student_output
        self.teacher_output = teacher_output
        self.transfer: nn.Module = nn.Identity()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        pairs = zip(self.student_taps, self.teacher_taps, strict=True)
        adapters = [Align(student.geometry(s), teacher.geometry(t), projection="always") for s, t in pairs]
        self.transfer = Transfer(adapters, pixels=self.pixels, regions=self.regions, ignore_index=self.ignore_index)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        logits = (
            pick_tensor(student.output, self.student_output, "the student's output"),
            pick_tensor(teacher.output, self.teacher_output, "the teacher's output"),
        )
        term: Tensor = self.transfer(self.features(student, teacher), logits, step.labels)
        return term


class PeerObjective(Objective):
    """An objective between the two sides of `lightning_kd.students.Peers`, both of which learn; there is no teacher.

    Args:
        a: Place or places in one side, as in ``"a.layer1"``.
        b: As many places in the other, as in ``"b.stages.0"``.
        name: Name of the term.
        weight: Factor of the term.

    Raises:
        SetupError: If the numbers of places differ.
    """

    needs_teacher = False
    needs_teacher_output = False

    def __init__(self, a: Places, b: Places, *, name: str, weight: Weight) -> None:
        super().__init__(name=name, weight=weight)
        left, right = as_taps(a), as_taps(b)
        if len(left) != len(right):
            raise SetupError(
                f"`{name}` pairs places of both sides one to one, got {len(left)} and {len(right)}: list a place of b "
                "for each place of a."
            )
        self.pairs: list[tuple[Tap, Tap]] = list(zip(left, right, strict=True))
        self.student_taps = left + right

    def aligns(self, peers: Probe) -> tuple[list[Align], list[Align]]:
        """Adapters of each pair, for a that learns from b and for b that learns from a."""
        geometries = [(peers.geometry(a), peers.geometry(b)) for a, b in self.pairs]
        to_a = [Align(a, b, projection="always") for a, b in geometries]
        return to_a, [Align(b, a, projection="always") for a, b in geometries]

    def features(self, peers: Observation) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Features of each pair, a first and b first."""
        pairs = [(peers.features[a], peers.features[b]) for a, b in self.pairs]
        return pairs, [(b, a) for a, b in pairs]


class BSDKD(PeerObjective):
    """Bidirectional selective distillation: two networks train together, each from the other where that one is better.

    Both directions of what `SelectiveKD` does, between the sides of a `lightning_kd.students.Peers`, with
    ``teacher=None``. Each pixel and each region teaches one side only; its target carries no gradient. The module's
    own loss must train both sides, as in ``cross_entropy(out_a, y) + cross_entropy(out_b, y)``.

    Args:
        a: Place or places in one side, as in ``"a.layer4"``; none transfers scores alone.
        b: As many places in the other, as in ``"b.stages.3"``.
        regions: Cells along each axis; no more than the coarsest grid has.
        pixels: Whether scores are transferred.
        ignore_index: Class index that marks a pixel without a label.
        a_output: Index or key of the logits in the output of a; ``None`` takes the usual one.
        b_output: Likewise for b.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ, or there is nothing to transfer.
        ValueError: If ``regions`` is not above 0.

    Source:
        Zhu et al., "A Good Student is Cooperative and Reliable: CNN-Transformer Collaborative Learning for Semantic
        Segmentation", arXiv:2307.12574. Its code is not public and its formulas are not confirmed: these are ours.

    Example:
        >>> BSDKD("a.layer4", "b.stages.3", regions=8).student_taps[1].path
        'b.stages.3'
    """

    def __init__(
        self,
        a: Places = (),
        b: Places = (),
        *,
        regions: int = REGIONS,
        pixels: bool = True,
        ignore_index: int = IGNORE_INDEX,
        a_output: Output = None,
        b_output: Output = None,
        weight: Weight = 1.0,
        name: str = "bsd",
    ) -> None:
        super().__init__(a, b, name=name, weight=weight)
        check_positive("regions", regions)
        _check_content(self.student_taps, pixels)
        self.regions = regions
        self.pixels = pixels
        self.ignore_index = ignore_index
        self.outputs = (a_output, b_output)
        self.transfers = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        self.transfers = nn.ModuleList(
            Transfer(adapters, pixels=self.pixels, regions=self.regions, ignore_index=self.ignore_index)
            for adapters in self.aligns(student)
        )

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        a, b = self._logits(student)
        directions = zip(self.transfers, self.features(student), ((a, b), (b, a)), strict=True)
        return torch.stack([transfer(pairs, logits, step.labels) for transfer, pairs, logits in directions]).sum()

    def _logits(self, student: Observation) -> list[Tensor]:
        outputs = student.output
        if not isinstance(outputs, Sequence) or len(outputs) != 2:
            raise SetupError(
                f"`{self.name}` distils between the two sides of a student Peers(a, b), whose output is a pair, "
                f"got {type(outputs).__name__}."
            )
        picks = zip(outputs, self.outputs, "ab", strict=True)
        return [pick_tensor(output, select, f"the output of {side}") for output, select, side in picks]


class HFDKD(PeerObjective):
    r"""Heterogeneous feature distillation: the low layers of two networks that train together become consistent.

    .. math::
        L = \bigl(1 - \cos(P_{ab} f_a, \mathrm{sg} f_b)\bigr) + \bigl(1 - \cos(P_{ba} f_b, \mathrm{sg} f_a)\bigr)

    averaged over the positions of the coarser grid and over the pairs, with learned 1x1 projections :math:`P` and no
    gradient through sg. The student is a `lightning_kd.students.Peers`, with ``teacher=None``.

    Args:
        a: Place or places in one side, as in ``"a.layer1"``.
        b: As many places in the other, as in ``"b.stages.0"``.
        weight: Factor of the term.
        name: Name of the term.

    Raises:
        SetupError: If the numbers of places differ, or there is none.

    Source:
        Zhu et al., "A Good Student is Cooperative and Reliable: CNN-Transformer Collaborative Learning for Semantic
        Segmentation", arXiv:2307.12574. Its code is not public and its formulas are not confirmed: this one is ours.

    Example:
        >>> HFDKD("a.layer1", "b.stages.0").name
        'hfd'
    """

    def __init__(self, a: Places, b: Places, *, weight: Weight = 1.0, name: str = "hfd") -> None:
        super().__init__(a, b, name=name, weight=weight)
        _check_content(self.student_taps, pixels=False)
        self.adapters = nn.ModuleList()

    @override
    def build(self, student: Probe, teacher: Probe) -> None:
        to_a, to_b = self.aligns(student)
        self.adapters = nn.ModuleList(to_a + to_b)

    @override
    def forward(self, student: Observation, teacher: Observation, step: Step) -> Tensor:
        to_a, to_b = self.features(student)
        terms = [cosine_distance(*align(*pair)) for align, pair in zip(self.adapters, to_a + to_b, strict=True)]
        return torch.stack(terms).sum() / len(self.pairs)


def _check_content(taps: tuple[Tap, ...], pixels: bool) -> None:
    if not taps and not pixels:
        raise SetupError("there is nothing to transfer: name places whose features are compared, or pass pixels=True.")


def _of_one_label_set(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape[1] != teacher.shape[1]:
        raise ShapeError(
            f"scores can only be compared on one label set, got {student.shape[1]} and {teacher.shape[1]} classes."
        )
    return student, teacher

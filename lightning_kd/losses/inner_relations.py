"""Losses on relations inside each sample: between its channels, and between its positions."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, operands, reduce, without_autocast
from lightning_kd.losses._gram import inverse_root
from lightning_kd.losses._rows import check_samples, gram_directions, in_chunks, unit

MAX_POSITIONS = 512


def inter_channel_correlation(student: Tensor, teacher: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Inter-channel correlation loss (ICKD): which channels of a sample are active at the same positions.

    .. math::
        L_n = \frac{1}{C} \lVert \hat G^s_n - \hat G^t_n \rVert_F^2, \qquad G_n = F_n F_n^\top

    with :math:`F_n` the map of sample :math:`n`, a channel in each row and a position in each column, and the hat
    dividing each row of the :math:`C \times C` matrix by its length. The grids may differ. No gradient flows to
    ``teacher``.

    Where there are fewer positions than channels, as in last maps, the matrices are never made: time is
    :math:`O(N C P^2)` for :math:`P` positions. Else it is :math:`O(N C^2 P)`, and samples are taken in chunks, so that
    about 16 MiB of float32 are held; more than one chunk is computed again in the backward pass.

    Args:
        student: Map of shape ``(N, C, *grid)`` with any number of grid axes, floating point.
        teacher: Map of the same samples and number of channels.
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, in [0, 4] up to rounding, at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the numbers of samples or channels differ, or a map is empty.
        TypeError: If the maps are not floating point.
        ValueError: If ``reduction`` is unknown.

    Source:
        Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation",
        arXiv:2202.03680; the form is that of its code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import inter_channel_correlation
        >>> apart, together = torch.eye(2)[None], torch.ones(1, 2, 1)  # channels at two positions, and at one
        >>> inter_channel_correlation(apart, together)  # (1, 0) against (1, 1) / sqrt(2): 2 - sqrt(2)
        tensor(0.5858)
    """
    check_reduction(reduction)
    check_samples(student, teacher)
    if student.shape[1] != teacher.shape[1]:
        raise ShapeError(
            f"`student` and `teacher` must have equally many channels, got {student.shape[1]} and {teacher.shape[1]}: "
            "project the student, as Align does."
        )
    s, t = (feature.reshape(*feature.shape[:2], -1) for feature in operands(student, teacher))

    with without_autocast(s):
        (_, channels, s_positions), t_positions = s.shape, t.shape[2]
        if s_positions**2 + s_positions * t_positions + t_positions**2 < channels * (s_positions + t_positions):
            values = _differences_by_positions(s, t)
        else:
            values = in_chunks(_differences_by_channels, s, t, elements=8 * channels**2)
    return reduce(values / channels, reduction)


def patch_similarity(
    student: Tensor, teacher: Tensor, *, max_positions: int = MAX_POSITIONS, reduction: Reduction = "mean"
) -> Tensor:
    r"""How alike the positions of an image are to each other: no width and no other image matters.

    .. math::
        L_n = \frac{1}{L^2} \sum_{ij} \left(\cos(s_{ni}, s_{nj}) - \cos(t_{ni}, t_{nj})\right)^2

    with :math:`s_{ni}` the channels of image :math:`n` at position :math:`i`. The cosine with a vector of zeros is 0.
    No gradient flows to ``teacher``.

    Of more than ``max_positions`` positions every second, third, ... is taken, so that time is
    :math:`O(N \cdot 512^2 C)` at most by default. Images are taken in chunks, so that about 16 MiB of float32 are
    held; more than one chunk is computed again in the backward pass.

    Args:
        student: Map of shape ``(N, C_s, *grid)`` with at least one grid axis, floating point.
        teacher: Map of the same images on the same grid, ``(N, C_t, *grid)``.
        max_positions: Most positions of an image to compare, at least 2.
        reduction: ``"mean"`` over the images, ``"sum"``, or ``"none"``.

    Returns:
        Loss, dimensionless, in [0, 4], at least float32: shape ``()``, or ``(N,)`` for ``"none"``.

    Raises:
        ShapeError: If the numbers of images or the grids differ, there is no grid, or a map is empty.
        TypeError: If the maps are not floating point.
        ValueError: If ``max_positions`` is below 2 or ``reduction`` is unknown.

    Source:
        Ours. That similarities within an image need no projection between architectures is a known idea; this form,
        and the cap, are not of a paper.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import patch_similarity
        >>> unlike, alike = torch.eye(2)[None], torch.ones(1, 1, 2)  # two positions; cosine 0 against cosine 1
        >>> patch_similarity(unlike, alike)  # 2 of 4 cosines differ by 1
        tensor(0.5000)
    """
    check_max_positions(max_positions)
    check_reduction(reduction)
    check_samples(student, teacher)
    if student.ndim < 3 or student.shape[2:] != teacher.shape[2:]:
        raise ShapeError(
            "`student` and `teacher` must be maps (N, C, *grid) on one grid, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}: see lightning_kd.layout.common_grid."
        )
    s, t = (_positions(feature, max_positions) for feature in operands(student, teacher))

    def of_images(student_positions: Tensor, teacher_positions: Tensor) -> Tensor:
        with without_autocast(s):
            difference = _cosines(student_positions) - _cosines(teacher_positions)
        return difference.square().mean(dim=(1, 2))

    return reduce(in_chunks(of_images, s, t, elements=4 * s.shape[1] ** 2), reduction)


class InterChannelCorrelation(nn.Module):
    """Module form of `inter_channel_correlation`.

    Args:
        reduction: ``"mean"`` over the samples, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return inter_channel_correlation(student, teacher, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class PatchSimilarity(nn.Module):
    """Module form of `patch_similarity`.

    Args:
        max_positions: Most positions of an image to compare, at least 2.
        reduction: ``"mean"`` over the images, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``max_positions`` is below 2 or ``reduction`` is unknown.
    """

    def __init__(self, *, max_positions: int = MAX_POSITIONS, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_max_positions(max_positions)
        check_reduction(reduction)
        self.max_positions = max_positions
        self.reduction: Reduction = reduction

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return patch_similarity(student, teacher, max_positions=self.max_positions, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"max_positions={self.max_positions}, reduction={self.reduction!r}"


def check_max_positions(max_positions: int) -> None:
    """Raise `ValueError` unless at least 2 positions are compared."""
    if max_positions < 2:
        raise ValueError(f"`max_positions` must be at least 2, got {max_positions}.")


def _differences_by_channels(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the channels' directions, summed over the channels of each sample."""
    return (gram_directions(student) - gram_directions(teacher)).square().sum(dim=(1, 2))


def _differences_by_positions(student: Tensor, teacher: Tensor) -> Tensor:
    """The same without matrices of channels: a squared difference of directions is 2 - 2 cos, of rows not zero."""
    between, of_student, of_teacher = (
        (a @ (a.mT @ b) * b).sum(dim=2) for a, b in ((student, teacher), (student, student), (teacher, teacher))
    )
    cosines = between * inverse_root(of_student) * inverse_root(of_teacher)
    return ((of_student > 0).to(cosines.dtype) + (of_teacher > 0) - 2.0 * cosines).sum(dim=1)


def _positions(feature: Tensor, most: int) -> Tensor:
    """At most ``most`` evenly spaced positions, shape ``(N, positions, C)``."""
    positions = feature.flatten(2).mT
    return positions[:, :: -(-positions.shape[1] // most)]


def _cosines(vectors: Tensor) -> Tensor:
    directions = unit(vectors)
    return directions @ directions.mT

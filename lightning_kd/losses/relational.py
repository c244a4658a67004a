"""Relational knowledge distillation (RKD): distances between the samples of a batch, and angles at them."""

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.losses._common import without_autocast
from lightning_kd.losses._gram import inverse_root, squared_distances
from lightning_kd.losses._rows import in_chunks, paired_rows


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Distance-wise loss of RKD: how far the samples of a batch are apart, relative to the mean.

    .. math::
        L = \frac{1}{N^2} \sum_{ij} \ell\left(\frac{D^s_{ij}}{\mu_s}, \frac{D^t_{ij}}{\mu_t}\right), \qquad
        D_{ij} = \lVert x_i - x_j \rVert

    with :math:`\mu` the mean of the positive distances and :math:`\ell` the smooth L1 (Huber) loss with its corner at
    1. Samples that are equal up to rounding have distance 0, which does not count in the mean. No gradient flows to
    ``teacher``; the student's mean is differentiated like the rest. Memory is :math:`O(N^2)` beside the features.

    Args:
        student: Features, shape ``(N, ...)``, floating point; every axis but the first is flattened.
        teacher: Features of the same samples, shape ``(N, ...)``, any size.

    Returns:
        Loss, dimensionless, non-negative, at least float32, shape ``()``; 0 for a single sample.

    Raises:
        ShapeError: If a side has no feature axis or is empty, or the numbers of samples differ.
        TypeError: If the features are not floating point.

    Source:
        Park et al., "Relational Knowledge Distillation", arXiv:1904.05068. That equal samples are left out of the
        mean, and get no gradient from each other, is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import relational_distance
        >>> student, teacher = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [1.0]])
        >>> relational_distance(student, teacher)  # distances (3, 6, 3) / 4 and (1, 1, 0): (1 + 4 + 9) / 144
        tensor(0.0972)
    """
    s, t = paired_rows(student, teacher)
    return F.smooth_l1_loss(_relative_distances(s), _relative_distances(t))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Angle-wise loss of RKD: the angle at each sample between each two others.

    .. math::
        L = \frac{1}{N^3} \sum_{ijk} \ell\left(\cos\angle^s_{jik}, \cos\angle^t_{jik}\right), \qquad
        \cos\angle_{jik} = \frac{(x_j - x_i)^\top (x_k - x_i)}{\lVert x_j - x_i \rVert\, \lVert x_k - x_i \rVert}

    with :math:`\ell` the smooth L1 (Huber) loss with its corner at 1. The cosine is 0 where a side of the angle has
    no length. No gradient flows to ``teacher``.

    Cosines follow from the distances, by the law of cosines: time is :math:`O(N^3 + N^2 d)`. Samples are taken as
    vertices in chunks, so that about 16 MiB of float32 are held beside the distances; more than one chunk is computed
    again in the backward pass.

    Args:
        student: Features, shape ``(N, ...)``, floating point; every axis but the first is flattened.
        teacher: Features of the same samples, shape ``(N, ...)``, any size.

    Returns:
        Loss, dimensionless, in [0, 3/2], at least float32, shape ``()``; 0 for a single sample.

    Raises:
        ShapeError: If a side has no feature axis or is empty, or the numbers of samples differ.
        TypeError: If the features are not floating point.

    Source:
        Park et al., "Relational Knowledge Distillation", arXiv:1904.05068.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import relational_angle
        >>> student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])  # on a line: 0, 180 and 0 degrees
        >>> teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # half a square: 45, 90 and 45 degrees
        >>> relational_angle(student, teacher)  # 2 (2 (1 - sqrt(1/2))² / 2 + 1 / 2) / 27
        tensor(0.0434)
    """
    s, t = paired_rows(student, teacher)
    s_squares, t_squares = _squared_distances(s), _squared_distances(t)

    def at_vertices(from_student: Tensor, from_teacher: Tensor) -> Tensor:
        cosines = _cosines(from_student, s_squares), _cosines(from_teacher, t_squares)
        return F.smooth_l1_loss(*cosines, reduction="none").mean(dim=(1, 2))

    return in_chunks(at_vertices, s_squares, t_squares, elements=10 * len(s) ** 2).mean()


class RelationalDistance(nn.Module):
    """Module form of `relational_distance`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relational_distance(student, teacher)


class RelationalAngle(nn.Module):
    """Module form of `relational_angle`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relational_angle(student, teacher)


def _relative_distances(rows: Tensor) -> Tensor:
    squares = _squared_distances(rows)
    equal = squares == 0
    distances = squares.masked_fill(equal, 1.0).sqrt().masked_fill(equal, 0.0)
    mean = distances.sum() / (~equal).sum().clamp(min=1)
    return distances / mean.masked_fill(mean == 0, 1.0)


def _squared_distances(rows: Tensor) -> Tensor:
    # Near samples are a small difference of large products: float64, which Apple's GPUs alone lack, keeps its digits.
    wide = rows if rows.device.type == "mps" else rows.double()
    centered = wide - wide.detach().mean(dim=0)
    with without_autocast(rows):
        return squared_distances(centered @ centered.T).to(rows.dtype)


def _cosines(from_vertices: Tensor, squares: Tensor) -> Tensor:
    """Cosines of the angles at ``v`` samples, from squared distances from these ``(v, n)`` and of all ``(n, n)``."""
    inverses = inverse_root(from_vertices)
    products = (from_vertices[:, :, None] + from_vertices[:, None, :] - squares) / 2.0
    return products * inverses[:, :, None] * inverses[:, None, :]

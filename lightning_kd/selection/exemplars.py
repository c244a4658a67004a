"""Samples that stand for their class when its other samples are gone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError


def herd(features: Tensor, count: int) -> list[int]:
    r"""Samples whose mean stays closest to the mean of all, the best first (herding).

    The :math:`k`-th is

    .. math::
        p_k = \operatorname*{arg\,min}_x \left\lVert \mu - \frac{1}{k}
        \Big( \varphi(x) + \sum_{j<k} \varphi(p_j) \Big) \right\rVert

    with unit features :math:`\varphi` and their mean :math:`\mu`. The first ones of a longer choice are the shorter
    choice, so that a memory shrinks by cutting its end.

    Args:
        features: One vector per sample of one class, shape ``(n, d)``, floating point.
        count: How many samples, up to ``n``.

    Returns:
        Indices in the order of choice.

    Raises:
        ShapeError: If ``features`` has another number of axes.
        ValueError: If ``count`` is not from 1 to ``n``.

    Source:
        Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", arXiv:1611.07725.

    Example:
        >>> herd(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), 1)  # the middle of the three
        [1]
    """
    if features.ndim != 2:
        raise ShapeError(f"`features` must have shape (n, d), got {tuple(features.shape)}.")
    check_positive("count", count)
    if count > len(features):
        raise ValueError(f"`count` must be at most the number of samples, {len(features)}, got {count}.")
    unit = F.normalize(features.detach().double(), dim=1)
    mean, total = unit.mean(dim=0), torch.zeros_like(unit[0])
    free = torch.ones(len(unit), dtype=torch.bool, device=unit.device)
    chosen: list[int] = []
    for size in range(1, count + 1):
        distances = torch.linalg.vector_norm(mean - (total + unit) / size, dim=1)
        best = int(distances.where(free, torch.inf).argmin())
        chosen.append(best)
        free[best] = False
        total = total + unit[best]
    return chosen


def exemplar_subset(features: Tensor, labels: Tensor, per_class: int) -> list[int]:
    """A memory of every class: the samples that `herd` chooses of each.

    Args:
        features: One vector per sample, shape ``(n, d)``; see `sample_features`.
        labels: Class indices, shape ``(n,)``.
        per_class: How many samples of each class; a class with fewer keeps all.

    Returns:
        Indices, class by class, in the order of choice.

    Raises:
        ShapeError: If ``labels`` has another length.
        ValueError: If ``per_class`` is not above 0.

    Source:
        Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", arXiv:1611.07725.

    Example:
        >>> exemplar_subset(torch.eye(4), torch.tensor([1, 0, 1, 0]), per_class=1)
        [1, 0]
    """
    if labels.shape != features.shape[:1]:
        raise ShapeError(f"`labels` must have shape {tuple(features.shape[:1])}, got {tuple(labels.shape)}.")
    check_positive("per_class", per_class)
    chosen: list[int] = []
    for label in torch.unique(labels):
        members = (labels == label).nonzero().squeeze(1)
        kept = herd(features[members], min(per_class, len(members)))
        chosen.extend(members[kept].tolist())
    return chosen

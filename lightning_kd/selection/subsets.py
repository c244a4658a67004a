"""Parts of a data set: random or scored, of every class alike if wanted, and the weight that goes with the part."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_kd._checks import check_choice, check_fraction, check_positive
from lightning_kd.errors import ShapeError

Keep = Literal["hardest", "easiest", "moderate"]
Key = Callable[[Tensor], Tensor]


def random_subset(samples: int, fraction: float, *, labels: Tensor | None = None, seed: int = 0) -> list[int]:
    """Indices of a random part of a data set.

    Distilled, a random part serves as well as one that was chosen with much effort, says the source; it costs nothing
    to find.

    Args:
        samples: How many samples the data set has.
        fraction: Share to keep, above 0 and up to 1.
        labels: Class indices of shape ``(samples,)``: every class keeps its share. ``None`` takes no account of them.
        seed: Of the choice.

    Returns:
        Indices in rising order, for ``torch.utils.data.Subset``: ``round(fraction * samples)`` of them, at least one.

    Raises:
        ShapeError: If ``labels`` has another length.
        ValueError: If ``samples`` or ``fraction`` is out of range.

    Source:
        Ben-Baruch et al., "Distilling the Knowledge in Data Pruning", arXiv:2403.07854.

    Example:
        >>> random_subset(8, 0.5, labels=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]), seed=1)
        [1, 2, 4, 6]
    """
    check_positive("samples", samples)
    order = torch.rand(samples, generator=torch.Generator().manual_seed(seed))
    return _lowest(lambda members: order[members], samples, fraction, labels)


def scored_subset(
    scores: Tensor, fraction: float, *, keep: Keep = "hardest", labels: Tensor | None = None
) -> list[int]:
    """Indices of the part of a data set that scores mark out.

    Args:
        scores: One number per sample, larger for harder ones, shape ``(n,)``; see `sample_difficulty`.
        fraction: Share to keep, above 0 and up to 1.
        keep: ``"hardest"``, ``"easiest"``, or ``"moderate"``: those nearest to the median, of their class if labels are
            given.
        labels: Class indices of shape ``(n,)``: every class keeps its share. ``None`` takes no account of them.

    Returns:
        Indices in rising order: ``round(fraction * n)`` of them, at least one. Among equal scores the first stay.

    Raises:
        ShapeError: If ``scores`` is no vector, is empty, or ``labels`` has another length.
        ValueError: If ``fraction`` is out of range, ``keep`` is unknown or a score is not finite.

    Source:
        ``"moderate"``: Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world
        Data-efficient Deep Learning", ICLR 2023, whose scores are distances to the class centre.

    Example:
        >>> scored_subset(torch.tensor([0.1, 0.9, 0.5, 0.7]), 0.5)
        [1, 3]
        >>> scored_subset(torch.tensor([0.1, 0.9, 0.5, 0.7]), 0.5, keep="easiest")
        [0, 2]
    """
    check_choice("keep", keep, ("hardest", "easiest", "moderate"))
    if scores.ndim != 1 or len(scores) == 0:
        raise ShapeError(f"`scores` must have shape (n,) with n > 0, got {tuple(scores.shape)}.")
    if not bool(scores.isfinite().all()):
        raise ValueError(f"`scores` must be finite, got {int((~scores.isfinite()).sum())} that are not.")
    scores = scores.detach().cpu().double()

    def key(members: Tensor) -> Tensor:
        values = scores[members]
        if keep == "moderate":
            return (values - values.quantile(0.5)).abs()
        return -values if keep == "hardest" else values

    return _lowest(key, len(scores), fraction, labels)


def distillation_share(fraction: float, *, full: float = 0.5) -> float:
    r"""Weight of the distillation term that goes with a part of the data; the task loss has the rest.

    .. math::
        \alpha(f) = 1 - f \, (1 - \alpha_\mathrm{full})

    The less data, the more the teacher's word counts against the labels, of which a small part, and one of hard samples
    most of all, holds more wrong ones. That the best weight depends so on the fraction is the source's finding; that it
    does so on a straight line is ours.

    Args:
        fraction: Share of the data that is kept, :math:`f`, above 0 and up to 1.
        full: Weight on the whole data, from 0 to 1.

    Returns:
        The weight, from ``full`` to 1, dimensionless.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Ben-Baruch et al., "Distilling the Knowledge in Data Pruning", arXiv:2403.07854.

    Example:
        >>> distillation_share(1.0), distillation_share(0.1)
        (0.5, 0.95)
    """
    _check_part(fraction)
    check_fraction("full", full)
    return round(1.0 - fraction * (1.0 - full), 12)


def _check_part(fraction: float) -> None:
    check_positive("fraction", fraction)
    check_fraction("fraction", fraction)


def _lowest(key: Key, samples: int, fraction: float, labels: Tensor | None) -> list[int]:
    """Indices of the samples with the lowest keys: of all, or of each class its share."""
    _check_part(fraction)
    if labels is not None and labels.shape != (samples,):
        raise ShapeError(f"`labels` must have shape ({samples},), got {tuple(labels.shape)}.")
    of_classes = [torch.arange(samples)]
    if labels is not None:
        of_classes = [(labels.cpu() == label).nonzero().squeeze(1) for label in torch.unique(labels.cpu())]
    counts = _shares([len(members) for members in of_classes], fraction)
    chosen = [
        members[key(members).argsort(stable=True)[:count]] for members, count in zip(of_classes, counts, strict=True)
    ]
    return sorted(torch.cat(chosen).tolist())


def _shares(sizes: list[int], fraction: float) -> list[int]:
    """How many of each class stay: its share rounded down, and what is missing from the largest remainders on."""
    total = max(1, round(fraction * sum(sizes)))
    exact = [fraction * size for size in sizes]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts

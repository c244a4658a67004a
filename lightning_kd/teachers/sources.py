"""Which of many trained networks should teach a new task: their similarity to it, measured before any training."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_choice, check_not_negative
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses import cka

Metric = Literal["parc", "cka"]


def task_similarity(features: Tensor, labels: Tensor, *, metric: Metric = "parc") -> float:
    r"""How far a network's features already tell the classes of a task apart.

    ``"parc"`` compares two matrices of distances between samples, one minus the correlation of their features and one
    minus the correlation of their one-hot labels, by Spearman's rank correlation over all pairs of samples. ``"cka"``
    is unbiased linear CKA of features and one-hot labels.

    Args:
        features: Of labelled samples of the new task, as the network pools them, shape ``(N, D)`` with ``N >= 4``.
        labels: Class indices, shape ``(N,)``, of at least two classes.
        metric: ``"parc"`` or ``"cka"``.

    Returns:
        Similarity, dimensionless, at most 1; near 0 for features that know nothing of the classes.

    Raises:
        ShapeError: If samples and labels do not go together, or there are too few: fewer than 4, one class only, or one
            of each class.
        ValueError: If ``metric`` is unknown.

    Source:
        Bolya, Mittapalli and Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning",
        arXiv:2111.06977 (PARC), from memory, checked against no code.

    Example:
        >>> features = torch.tensor([[1.0, 0.0, 0.1], [1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 1.0, 0.0]])
        >>> right, wrong = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        >>> task_similarity(features, right) > task_similarity(features, wrong)
        True
    """
    check_choice("metric", metric, ("parc", "cka"))
    codes = torch.from_numpy(np.unique(labels.cpu().numpy(), return_inverse=True)[1])
    fits = features.ndim == 2 and labels.shape == features.shape[:1] and len(features) >= 4
    if not fits or not 1 < len(set(codes.tolist())) < len(labels):
        raise ShapeError(
            "`features` and `labels` must have shapes (N, D) and (N,) with at least 4 samples of at least 2 classes, "
            f"two of one class, got {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    if metric == "cka":
        return float(cka(features.double(), F.one_hot(codes).to(features.device, torch.float64)))
    rows, columns = torch.tril_indices(len(features), len(features), offset=-1)
    apart = 1 - torch.corrcoef(features.double()).cpu()[rows, columns]
    if not bool(apart.isfinite().all()):
        raise ShapeError("`features` must vary within every sample and be finite: a constant one has no correlation.")
    # One-hot labels have two distances: 0 within a class, and one and the same between any two.
    ranks = torch.stack([_ranks(apart), _ranks(codes[rows] != codes[columns])])
    return float(torch.corrcoef(ranks)[0, 1])


def source_weights(similarities: Mapping[str, float], *, power: float = 1.0, nearest: bool = False) -> dict[str, float]:
    r"""Weights of several source networks by their similarity to the task.

    .. math::
        w_s = \frac{\max(0, e_s)^p}{\sum_r \max(0, e_r)^p}

    With :math:`p = 0` all sources with a similarity above 0 count alike; the larger :math:`p`, the more the nearest
    counts. Pass the values as ``weights`` of an `EnsembleTeacher` with the members in the same order.

    Args:
        similarities: :math:`e_s` of each source, as `task_similarity` gives it.
        power: :math:`p`, at least 0, dimensionless.
        nearest: Whether the nearest source has weight 1 and the others 0: DistillNearest instead of DistillWeighted.

    Returns:
        Weights, at least 0 with sum 1, in the order of ``similarities``.

    Raises:
        SetupError: If no source has a similarity above 0.
        ValueError: If ``power`` is negative.

    Source:
        Borup, Phoo and Hariharan, "Distilling from Similar Tasks for Transfer Learning on a Budget", arXiv:2304.12314
        (DistillNearest, DistillWeighted), from memory, checked against no code.

    Example:
        >>> source_weights({"birds": 0.6, "cars": 0.2, "noise": -0.1})
        {'birds': 0.75, 'cars': 0.25, 'noise': 0.0}
    """
    check_not_negative("power", power)
    raised = {name: value**power if value > 0 else 0.0 for name, value in similarities.items()}
    total = sum(raised.values())
    if total <= 0:
        raise SetupError(
            f"`similarities` must have a value above 0, got {dict(similarities)}: none of these networks helps."
        )
    if nearest:
        best = max(similarities, key=lambda name: similarities[name])
        return {name: float(name == best) for name in similarities}
    return {name: round(value / total, 12) for name, value in raised.items()}


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = np.unique(values.numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy((counts.cumsum() - (counts - 1) / 2)[place])

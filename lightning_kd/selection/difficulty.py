"""How hard a sample is, told from class scores."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_choice
from lightning_kd.errors import SetupError, ShapeError

Measure = Literal["margin", "entropy", "confidence", "loss", "el2n"]
MEASURES = ("margin", "entropy", "confidence", "loss", "el2n")
WITH_LABELS = ("loss", "el2n")


def difficulty(logits: Tensor, labels: Tensor | None = None, *, measure: Measure = "margin") -> Tensor:
    r"""Difficulty of each sample, larger for harder ones.

    With the class probabilities :math:`p = \mathrm{softmax}(z)`, sorted :math:`p_{(1)} \ge p_{(2)} \ge \dots`, and the
    label :math:`y`:

    ================ =========================================== ==================
    ``measure``      value                                       range
    ================ =========================================== ==================
    ``"margin"``     :math:`1 - (p_{(1)} - p_{(2)})`             0 to 1
    ``"entropy"``    :math:`-\sum_c p_c \log p_c` in nats        0 to :math:`\log C`
    ``"confidence"`` :math:`1 - p_{(1)}`                         0 to :math:`1 - 1/C`
    ``"loss"``       :math:`-\log p_y` in nats                   0 upwards
    ``"el2n"``       :math:`\lVert p - e_y \rVert_2`             0 to :math:`\sqrt 2`
    ================ =========================================== ==================

    Args:
        logits: Unnormalised scores :math:`z`, shape ``(N, C)`` with at least 2 classes, floating point.
        labels: Class indices of shape ``(N,)``, for ``"loss"`` and ``"el2n"``; the others ignore them.
        measure: Which of the five.

    Returns:
        Difficulties of shape ``(N,)``, at least float32, without gradient.

    Raises:
        SetupError: If ``measure`` needs labels and there are none.
        ShapeError: If a shape is another.
        ValueError: If ``measure`` is unknown.

    Source:
        ``"el2n"``: Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet", arXiv:2107.07075; the
        others are common.

    Example:
        >>> logits = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0]]).log()
        >>> difficulty(logits)
        tensor([0.7500, 0.2000])
    """
    check_choice("measure", measure, MEASURES)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ShapeError(f"`logits` must have shape (N, C) with at least 2 classes, got {tuple(logits.shape)}.")
    log_p = F.log_softmax(logits.detach().to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
    if measure in WITH_LABELS:
        return _against_labels(log_p, labels, measure)
    p = log_p.exp()
    if measure == "entropy":
        entropy: Tensor = torch.special.entr(p).sum(dim=1)
        return entropy
    best, second = p.topk(2, dim=1).values.unbind(dim=1)
    return 1 - best if measure == "confidence" else 1 - (best - second)


def _against_labels(log_p: Tensor, labels: Tensor | None, measure: Measure) -> Tensor:
    if labels is None:
        raise SetupError(f"`measure={measure!r}` compares with labels, got none: pass labels=, or measure='margin'.")
    if labels.shape != log_p.shape[:1]:
        raise ShapeError(f"`labels` must have shape {tuple(log_p.shape[:1])}, got {tuple(labels.shape)}.")
    if measure == "loss":
        return -log_p.gather(1, labels.long()[:, None]).squeeze(1)
    one_hot = F.one_hot(labels.long(), log_p.shape[1]).to(log_p)
    distance: Tensor = torch.linalg.vector_norm(log_p.exp() - one_hot, dim=1)
    return distance

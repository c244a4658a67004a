"""How much each member of an ensemble counts."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_kd.dense import labels_on
from lightning_kd.errors import SetupError, ShapeError

Rule = Literal["confidence", "entropy", "labels"]
RULES: tuple[Rule, ...] = ("confidence", "entropy", "labels")


def member_weights(
    log_probabilities: Tensor, rule: Rule | Sequence[float] | None, labels: Tensor | None = None
) -> Tensor:
    r"""Weights of an ensemble's members, which sum to 1 over the members at every position.

    With probabilities :math:`p_{j}` of member :math:`j` of :math:`M`, its entropy :math:`H_j`, and its cross-entropy
    :math:`L_j` with the label,

    .. math::
        w_j \propto \max_c p_{jc} \;\text{(confidence)}, \qquad
        w_j \propto e^{-H_j} \;\text{(entropy)}, \qquad
        w_j = \frac{1}{M - 1} \Bigl(1 - \frac{e^{L_j}}{\sum_i e^{L_i}}\Bigr) \;\text{(labels)}.

    Args:
        log_probabilities: Of each member, shape ``(M, N, ..., C)``, floating point.
        rule: ``"confidence"``, ``"entropy"`` or ``"labels"``; a fixed weight of each member, at least 0; ``None`` for
            equal weights.
        labels: Class indices of shape ``(N, ...)``, at any resolution, or mixed labels with classes on axis 1; for
            ``"labels"``.

    Returns:
        Weights, dimensionless, from 0 to 1: shape ``(M, N, ...)``, or one that broadcasts to it.

    Raises:
        SetupError: If labels are needed and missing, or with ``"labels"`` there is one member only.
        ShapeError: If there is not one weight per member.
        ValueError: If weights are negative or all zero.

    Source:
        Labels: Zhang et al., "Confidence-Aware Multi-Teacher Knowledge Distillation", arXiv:2201.00007, from memory,
        checked against no code. The other two are ours.

    Example:
        >>> sure, unsure = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.6, 0.4]])
        >>> member_weights(torch.stack([sure, unsure]).log(), "confidence").flatten()  # 0.9 and 0.6 of 1.5
        tensor([0.6000, 0.4000])
    """
    if rule is None or not isinstance(rule, str):
        return _fixed(log_probabilities, rule)
    if rule == "confidence":
        shares = log_probabilities.amax(dim=-1).exp()
        return shares / shares.sum(dim=0)
    if rule == "entropy":
        surprise = log_probabilities.masked_fill(log_probabilities.isneginf(), 0.0)
        return F.softmax((log_probabilities.exp() * surprise).sum(dim=-1), dim=0)
    return _by_labels(log_probabilities, labels)


def _fixed(log_probabilities: Tensor, weights: Sequence[float] | None) -> Tensor:
    members = len(log_probabilities)
    values = [1.0] * members if weights is None else [float(weight) for weight in weights]
    if len(values) != members:
        raise ShapeError(f"`weights` must have one value for each of {members} members, got {len(values)}.")
    if min(values) < 0 or sum(values) <= 0:
        raise ValueError(f"`weights` must be at least 0 and not all 0, got {values}.")
    shares = torch.tensor(values, dtype=log_probabilities.dtype, device=log_probabilities.device) / sum(values)
    return shares.reshape(-1, *(1,) * (log_probabilities.ndim - 2))


def _by_labels(log_probabilities: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        raise SetupError("`weights='labels'` needs the labels of the batch, got none.")
    members = len(log_probabilities)
    if members < 2:
        raise SetupError("`weights='labels'` compares members, got one: leave weights out.")
    indices = labels.argmax(dim=1) if labels.is_floating_point() else labels.long()
    # Labels out of range mark positions that no objective counts.
    indices = labels_on(indices, tuple(log_probabilities.shape[2:-1])).clamp(0, log_probabilities.shape[-1] - 1)
    chosen = indices.expand(log_probabilities.shape[:-1])[..., None]
    wrongness = F.softmax(-log_probabilities.gather(-1, chosen)[..., 0], dim=0)
    return (1 - wrongness) / (members - 1)

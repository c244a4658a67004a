"""Losses on samples without labels, of which not all are worth learning from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_positive, check_same_shape
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import operands


def combined_confidence(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""How sure teacher and student are of one class, together.

    .. math::
        \max_c \tfrac12 (p_c + q_c), \qquad p = \mathrm{softmax}(z_t), \quad q = \mathrm{softmax}(z_s)

    Args:
        student_logits: Unnormalised scores :math:`z_s`, shape ``(N, C)``, floating point.
        teacher_logits: Unnormalised scores :math:`z_t`, same shape.

    Returns:
        Confidences from :math:`1/C` to 1, shape ``(N,)``, at least float32, without gradient.

    Raises:
        ShapeError: If the two logits differ in shape or are empty.
        TypeError: If the logits are not floating point.

    Source:
        Ours, after Tang et al., "Distribution Shift Matters for Knowledge Distillation with Webly Collected Images",
        arXiv:2307.11469.

    Example:
        >>> z_s, z_t = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8], [0.7, 0.3]]).log()
        >>> combined_confidence(z_s, z_t)
        tensor([0.6500, 0.8000])
    """
    check_same_shape(student_logits, teacher_logits, "Logits")
    student, teacher = operands(student_logits, teacher_logits, "_logits")
    combined: Tensor = (student.detach().softmax(dim=-1) + teacher.softmax(dim=-1)) / 2
    return combined.amax(dim=-1)


def most_confident(confidence: Tensor, share: float) -> Tensor:
    """True for the share of a batch whose confidence is largest.

    Args:
        confidence: One number per sample, shape ``(N,)``.
        share: How many of them, above 0 and up to 1; at least one sample.

    Returns:
        Boolean, shape ``(N,)``. Among equal confidences the first are taken.

    Raises:
        ShapeError: If ``confidence`` is no vector or is empty.
        ValueError: If ``share`` is out of range.

    Example:
        >>> most_confident(torch.tensor([0.2, 0.9, 0.4, 0.8]), 0.5)
        tensor([False,  True, False,  True])
    """
    check_positive("share", share)
    check_fraction("share", share)
    if confidence.ndim != 1 or len(confidence) == 0:
        raise ShapeError(f"`confidence` must have shape (N,) with N > 0, got {tuple(confidence.shape)}.")
    chosen = torch.zeros_like(confidence, dtype=torch.bool)
    count = max(1, round(share * len(confidence)))
    chosen[confidence.argsort(descending=True, stable=True)[:count]] = True
    return chosen


def weighted_feature_mse(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    r"""Mean squared error between features, in which samples count by their weights.

    .. math::
        L = \frac{\sum_n w_n \frac1d \lVert s_n - t_n \rVert^2}{\sum_n w_n}

    Args:
        student: Features, shape ``(N, d)``, floating point.
        teacher: Features, same shape; no gradient flows to them.
        weights: :math:`w_n \ge 0`, shape ``(N,)``, without gradient. If all are 0 the loss is a 0 that keeps the graph.

    Returns:
        Loss in squared units of the feature, shape ``()``, at least float32.

    Raises:
        ShapeError: If the features differ in shape or are empty, or ``weights`` has another length.
        TypeError: If the features are not floating point.

    Source:
        Ours, after Tang et al., arXiv:2307.11469.

    Example:
        >>> s, t = torch.tensor([[1.0], [5.0]]), torch.tensor([[0.0], [0.0]])
        >>> weighted_feature_mse(s, t, torch.tensor([1.0, 3.0]))  # (1 * 1 + 3 * 25) / 4
        tensor(19.)
    """
    check_same_shape(student, teacher, "Features")
    s, t = operands(student, teacher)
    _check_vector("weights", weights, s)
    w = weights.detach().to(s)
    total = w.sum()
    return ((s - t).square().flatten(1).mean(dim=1) * w).sum() / total.where(total > 0, torch.ones_like(total))


def class_similarities(features: Tensor, known: Tensor, labels: Tensor, *, classes: int) -> Tensor:
    r"""Largest cosine between a feature and the known features of each class.

    .. math::
        s_{nc} = \max_{i: y_i = c} \cos(f_n, k_i)

    Args:
        features: Of unlabelled samples, shape ``(N, d)``, floating point.
        known: Of labelled samples, shape ``(M, d)``.
        labels: Their class indices, shape ``(M,)``.
        classes: Number of classes :math:`C`.

    Returns:
        Similarities from -1 to 1, shape ``(N, C)``, at least float32, without gradient; -1 for a class without
        labelled samples.

    Raises:
        ShapeError: If widths or lengths do not fit.

    Source:
        Du et al., "Semi-Supervised Learning via Weight-aware Distillation under Class Distribution Mismatch",
        arXiv:2308.11874, in the form of its code, without its rotated copies of each image.

    Example:
        >>> class_similarities(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([1, 0]), classes=2)
        tensor([[0., 1.]])
    """
    if features.ndim != 2 or known.ndim != 2 or features.shape[1] != known.shape[1]:
        raise ShapeError(
            f"`features` and `known` must be vectors of one width, got {tuple(features.shape)} and "
            f"{tuple(known.shape)}."
        )
    _check_vector("labels", labels, known)
    unlabelled, labelled = operands(features.detach(), known, "_features")
    cosines = F.normalize(unlabelled, dim=1) @ F.normalize(labelled, dim=1).T
    of_class = labels.to(cosines.device).long().expand_as(cosines)
    lowest = cosines.new_full((len(cosines), classes), -1.0)
    return lowest.scatter_reduce(1, of_class, cosines, "amax")


def weight_aware_cross_entropy(student_logits: Tensor, similarities: Tensor) -> Tensor:
    r"""Cross-entropy with the most similar class, by how much more similar it is than the next.

    .. math::
        L = \frac1N \sum_n (s_{n(1)} - s_{n(2)}) \, (-\log q_{n \hat y_n}), \qquad
        \hat y_n = \operatorname*{arg\,max}_c s_{nc}

    A sample of a class that nobody knows resembles several classes alike, or none, and hardly counts.

    Args:
        student_logits: Unnormalised scores, shape ``(N, C)`` with at least 2 classes, floating point.
        similarities: :math:`s`, see `class_similarities`; same shape. No gradient flows to them.

    Returns:
        Loss in nats, non-negative, shape ``()``, at least float32.

    Raises:
        ShapeError: If the shapes differ, are empty or have fewer than 2 classes.
        TypeError: If an argument is not floating point.

    Source:
        Du et al., arXiv:2308.11874, in the form of its code.

    Example:
        >>> weight_aware_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.2, 0.7]]))  # 0.5 log 2
        tensor(0.3466)
    """
    check_same_shape(student_logits, similarities, "Logits and similarities")
    student, similar = operands(student_logits, similarities, "_logits")
    if student.ndim != 2 or student.shape[1] < 2:
        raise ShapeError(f"`student_logits` must have shape (N, C) with C > 1, got {tuple(student.shape)}.")
    (best, second), labels = similar.topk(2, dim=1).values.unbind(dim=1), similar.argmax(dim=1)
    return ((best - second) * F.cross_entropy(student, labels, reduction="none")).mean()


class WeightAwareCrossEntropy(nn.Module):
    """Module form of `weight_aware_cross_entropy`."""

    @override
    def forward(self, student_logits: Tensor, similarities: Tensor) -> Tensor:
        return weight_aware_cross_entropy(student_logits, similarities)


class WeightedFeatureMSE(nn.Module):
    """Module form of `weighted_feature_mse`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        return weighted_feature_mse(student, teacher, weights)


def _check_vector(name: str, vector: Tensor, rows: Tensor) -> None:
    if vector.shape != rows.shape[:1]:
        raise ShapeError(f"`{name}` must have shape {tuple(rows.shape[:1])}, got {tuple(vector.shape)}.")

"""Losses on how the samples of a batch relate to each other; student and teacher may differ in width."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice, check_same_shape
from lightning_kd.losses._common import without_autocast
from lightning_kd.losses._rows import gram_directions, paired_rows, unit
from lightning_kd.losses.feature import feature_mse

CongruenceVariant = Literal["code", "paper"]
_PKT_EPSILON = 1e-7
_CONGRUENCE_GAMMA = 0.4
_CONGRUENCE_ORDER = 2


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Similarity preserving loss (SP): which samples of a batch activate a network alike.

    .. math::
        L = \frac{1}{N^2} \lVert \hat G_s - \hat G_t \rVert_F^2, \qquad G = F F^\top

    with :math:`F` the features of a sample in each row and the hat dividing each row of :math:`G` by its length; a
    row of zeros stays zero. No gradient flows to ``teacher``. Memory is :math:`O(N^2)` beside the features.

    Args:
        student: Features, shape ``(N, ...)``, floating point; every axis but the first is flattened.
        teacher: Features of the same samples, shape ``(N, ...)``, any size.

    Returns:
        Loss, dimensionless, in [0, 4 / N], at least float32, shape ``()``; 0 for a single sample.

    Raises:
        ShapeError: If a side has no feature axis or is empty, or the numbers of samples differ.
        TypeError: If the features are not floating point.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import similarity_preserving
        >>> unlike, alike = torch.eye(2), torch.ones(2, 1)  # (1, 0), (0, 1) against twice (1, 1) / sqrt(2)
        >>> similarity_preserving(unlike, alike)  # 1 - 1 / sqrt(2)
        tensor(0.2929)
    """
    s, t = paired_rows(student, teacher)
    with without_autocast(s):
        return (gram_directions(s) - gram_directions(t)).square().mean()


def probabilistic_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Probabilistic knowledge transfer (PKT): the distribution of each sample's affinities to the batch.

    .. math::
        L = \frac{1}{N^2} \sum_{ij} p_{ij} \log\frac{p_{ij} + \epsilon}{q_{ij} + \epsilon}, \qquad
        p_{ij} = \frac{1 + \cos(t_i, t_j)}{\sum_k 1 + \cos(t_i, t_k)}

    with :math:`q` likewise of the student and :math:`\epsilon = 10^{-7}`, which is also added to the lengths in the
    cosine. A sample is among its own neighbours. No gradient flows to ``teacher``. Memory is :math:`O(N^2)`.

    Args:
        student: Features, shape ``(N, ...)``, floating point; every axis but the first is flattened.
        teacher: Features of the same samples, shape ``(N, ...)``, any size.

    Returns:
        Loss in nats, at least float32, shape ``()``: non-negative up to rounding; 0 for a single sample.

    Raises:
        ShapeError: If a side has no feature axis or is empty, or the numbers of samples differ.
        TypeError: If the features are not floating point.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv:1803.10837;
        the mean over :math:`N^2` is the published code's.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import probabilistic_transfer
        >>> unlike, alike = torch.eye(2), torch.ones(2, 1)  # q = (2/3, 1/3) in each row, p = (1/2, 1/2)
        >>> probabilistic_transfer(unlike, alike)  # (log 3/4 + log 3/2) / 4
        tensor(0.0294)
    """
    s, t = paired_rows(student, teacher)
    with without_autocast(s):
        q, p = _affinities(s), _affinities(t)
    return (p * ((p + _PKT_EPSILON).log() - (q + _PKT_EPSILON).log())).mean()


def correlation_congruence(student: Tensor, teacher: Tensor, *, variant: CongruenceVariant = "code") -> Tensor:
    r"""Correlation congruence (CC): how the samples of a batch correlate, in one of two unlike forms.

    .. math::
        L_\mathrm{code} = \frac{1}{N - 1} \sum_{i=1}^{N-1} \sum_c |d_{ic}|\,|d_{i+1,c}|, \quad d = s - t; \qquad
        L_\mathrm{paper} = \frac{1}{N^2} \lVert K(s) - K(t) \rVert_F^2

    where :math:`K` is the Gaussian kernel :math:`e^{-\gamma \lVert \hat x_i - \hat x_j \rVert^2}` of features over
    their lengths, with :math:`\gamma = 0.4` and the exponential of the cosine developed to second order:

    .. math::
        K_{ij} = e^{-2\gamma} \sum_{p=0}^{2} \frac{(2\gamma)^p}{p!} (\hat x_i^\top \hat x_j)^p

    The code form ties each sample to the next one only, so it depends on the order of the batch, and it compares
    element by element, so it needs equal widths. No gradient flows to ``teacher``. Memory is :math:`O(N^2)`.

    Args:
        student: Features, shape ``(N, ...)``, floating point; every axis but the first is flattened.
        teacher: Features of the same samples, shape ``(N, ...)``; of the student's shape for ``"code"``.
        variant: ``"code"`` or ``"paper"``.

    Returns:
        Loss, non-negative, at least float32, shape ``()``; in squared units of the features for ``"code"``, with 0 for
        a single sample, and dimensionless for ``"paper"``.

    Raises:
        ShapeError: If a side has no feature axis or is empty, the numbers of samples differ, or with ``"code"`` the
            shapes.
        TypeError: If the features are not floating point.
        ValueError: If ``variant`` is unknown.

    Source:
        Peng et al., "Correlation Congruence for Knowledge Distillation", arXiv:1904.01802. ``"code"``, the default, is
        the form behind the published comparisons of methods and their weight 0.02, and equals their code on equal
        inputs; ``"paper"`` is from memory, checked against neither code nor text.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import correlation_congruence
        >>> student = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
        >>> correlation_congruence(student, torch.zeros(3, 2))  # ((1*3 + 2*1) + (3*0 + 1*0)) / 2
        tensor(2.5000)
    """
    check_choice("variant", variant, ("code", "paper"))
    s, t = paired_rows(student, teacher)
    if variant == "paper":
        with without_autocast(s):
            return feature_mse(_gaussian_correlation(s), _gaussian_correlation(t))
    check_same_shape(student, teacher, "Features")
    distances = (s - t).abs()
    return (distances[:-1] * distances[1:]).sum() / max(len(s) - 1, 1)


class SimilarityPreserving(nn.Module):
    """Module form of `similarity_preserving`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return similarity_preserving(student, teacher)


class ProbabilisticTransfer(nn.Module):
    """Module form of `probabilistic_transfer`."""

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return probabilistic_transfer(student, teacher)


class CorrelationCongruence(nn.Module):
    """Module form of `correlation_congruence`.

    Args:
        variant: ``"code"`` or ``"paper"``.

    Raises:
        ValueError: If ``variant`` is unknown.
    """

    def __init__(self, *, variant: CongruenceVariant = "code") -> None:
        super().__init__()
        check_choice("variant", variant, ("code", "paper"))
        self.variant: CongruenceVariant = variant

    @override
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation_congruence(student, teacher, variant=self.variant)

    @override
    def extra_repr(self) -> str:
        return f"variant={self.variant!r}"


def _affinities(rows: Tensor) -> Tensor:
    directions = unit(rows, epsilon=_PKT_EPSILON)
    affinities = (directions @ directions.T + 1.0).clamp(min=0.0) / 2.0
    return affinities / affinities.sum(dim=1, keepdim=True)


def _gaussian_correlation(rows: Tensor) -> Tensor:
    directions = unit(rows)
    cosines = directions @ directions.T
    terms = [
        (2 * _CONGRUENCE_GAMMA) ** order / math.factorial(order) * cosines**order
        for order in range(_CONGRUENCE_ORDER + 1)
    ]
    return math.exp(-2 * _CONGRUENCE_GAMMA) * torch.stack(terms).sum(dim=0)

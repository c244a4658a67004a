"""Noise-contrastive estimation (NCE): tell a sample's own counterpart from others, the loss of CRD."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError
from lightning_kd.losses._common import Reduction, check_reduction, reduce

_EPSILON = 1e-7


def noise_contrastive(log_probabilities: Tensor, *, samples: int, reduction: Reduction = "mean") -> Tensor:
    r"""Noise-contrastive estimation of one positive against :math:`K` negatives, one direction of CRD.

    .. math::
        L = -\log\frac{P_0}{P_0 + c} - \sum_{k=1}^{K} \log\frac{K / n}{P_k + c}, \qquad c = K / n + 10^{-7}

    where :math:`P_0` is the probability of the sample's own counterpart, :math:`P_k` that of a negative and
    :math:`1 / n` the one of noise that draws uniformly from the data set. Computed from logarithms in at least
    float32, so that no temperature overflows.

    Args:
        log_probabilities: Logarithms of :math:`P_0, \ldots, P_K`, shape ``(N, 1 + K)``, floating point, in nats.
        samples: Size :math:`n` of the data set, at least 1.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, non-negative, at least float32: shape ``()``, or ``(N,)`` for ``"none"``. It is not 0 for a
        perfect student.

    Raises:
        ShapeError: If ``log_probabilities`` is not ``(N, 1 + K)`` with :math:`K \ge 1`, or is empty.
        TypeError: If ``log_probabilities`` is not floating point.
        ValueError: If ``samples`` is not above 0 or ``reduction`` is unknown.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation", arXiv:1910.10699, with the constant of the
        published code.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import noise_contrastive
        >>> uniform = torch.full((2, 5), 1 / 10).log()  # as likely as noise: log 5 + 4 log 5/4
        >>> noise_contrastive(uniform, samples=10)
        tensor(2.5020)
    """
    check_positive("samples", samples)
    check_reduction(reduction)
    if not log_probabilities.is_floating_point():
        raise TypeError(f"`log_probabilities` must be a floating-point tensor, got {log_probabilities.dtype}.")
    if log_probabilities.ndim != 2 or log_probabilities.shape[1] < 2 or len(log_probabilities) == 0:
        raise ShapeError(
            "`log_probabilities` must have shape (N, 1 + negatives) with at least one sample and one negative, "
            f"got {tuple(log_probabilities.shape)}."
        )
    values = log_probabilities.to(torch.promote_types(log_probabilities.dtype, torch.float32))
    noise = (values.shape[1] - 1) / samples
    odds = values - math.log(noise + _EPSILON)
    # log(P / (P + c)) and log(K/n / (P + c)) = log(K/n / c) + log(c / (P + c))
    found = F.logsigmoid(odds[:, 0])
    rejected = math.log(noise / (noise + _EPSILON)) + F.logsigmoid(-odds[:, 1:])
    return -reduce(found + rejected.sum(dim=1), reduction)


class NoiseContrastive(nn.Module):
    """Module form of `noise_contrastive`.

    Args:
        samples: Size of the data set, at least 1.
        reduction: ``"mean"`` over the batch, ``"sum"``, or ``"none"``.

    Raises:
        ValueError: If ``samples`` is not above 0 or ``reduction`` is unknown.
    """

    def __init__(self, *, samples: int, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive("samples", samples)
        check_reduction(reduction)
        self.samples = samples
        self.reduction: Reduction = reduction

    @override
    def forward(self, log_probabilities: Tensor) -> Tensor:
        return noise_contrastive(log_probabilities, samples=self.samples, reduction=self.reduction)

    @override
    def extra_repr(self) -> str:
        return f"samples={self.samples}, reduction={self.reduction!r}"

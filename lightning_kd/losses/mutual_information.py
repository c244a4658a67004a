"""A lower bound on the mutual information between student and teacher features."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction
from lightning_kd.errors import ShapeError


def mutual_information_loss(scores: Tensor, log_baseline: Tensor, *, alpha: float = 0.5) -> Tensor:
    r"""Negative of a lower bound on mutual information, between low variance and low bias (MI-alpha).

    .. math::
        L = -\Bigl(1 + \mathrm{mean}_{i \ne j} \bigl(f_{ii} - \log a_{ij}\bigr)
            - \mathrm{mean}_{i \ne j} \frac{e^{f_{ij}}}{a_{ii}}\Bigr), \qquad
        a_{ij} = \alpha \, \mathrm{mean}_{k \ne j} \, e^{f_{ik}} + (1 - \alpha) \, e^{b_i}

    The critic's score :math:`f_{ij}` says how well student sample i and teacher sample j belong together, the baseline
    :math:`b_i` what its exponential is on average. At :math:`\alpha = 0` this is the bound of Tuba (of NWJ with
    :math:`b = 1`): no bias in the best case and high variance; :math:`\alpha = 1` is close to InfoNCE, without a
    baseline. All exponentials are combined in log space. The gradient flows to both arguments, so that the critic and
    the baseline learn.

    Args:
        scores: :math:`f`, shape ``(N, N)`` with at least 2 samples, student samples along the first axis, floating
            point.
        log_baseline: :math:`b`, shape ``(N,)``, floating point.
        alpha: Share of the batch in the baseline, from 0 to 1, dimensionless.

    Returns:
        Minus the bound in nats, of either sign, at least float32, shape ``()``.

    Raises:
        ShapeError: If ``scores`` is not square with at least 2 samples, or ``log_baseline`` does not fit it.
        TypeError: If an argument is not floating point.
        ValueError: If ``alpha`` is out of range.

    Source:
        Poole et al., "On Variational Bounds of Mutual Information", arXiv:1905.06922; for distillation by the Distiller
        search, whose code (seen in a copy that names no repository) takes the logit of ``alpha`` and describes its two
        ends the other way round. The critic and the ``alpha`` of the paper are not known; the default is ours.

    Example:
        >>> import torch
        >>> from lightning_kd.losses import mutual_information_loss
        >>> scores = torch.tensor([[5.0, 0.0], [0.0, 5.0]])
        >>> mutual_information_loss(scores, torch.zeros(2), alpha=0.0)  # -(1 + 5 - 1)
        tensor(-5.)
    """
    check_fraction("alpha", alpha)
    for name, tensor in (("scores", scores), ("log_baseline", log_baseline)):
        if not tensor.is_floating_point():
            raise TypeError(f"`{name}` must be a floating-point tensor, got {tensor.dtype}.")
    samples = scores.shape[0] if scores.ndim else 0
    if scores.shape != (samples, samples) or samples < 2:
        raise ShapeError(f"`scores` must be square with at least 2 samples, got shape {tuple(scores.shape)}.")
    if log_baseline.shape != (samples,):
        raise ShapeError(f"`log_baseline` must have shape ({samples},), got {tuple(log_baseline.shape)}.")
    dtype = torch.promote_types(torch.promote_types(scores.dtype, log_baseline.dtype), torch.float32)
    f, baseline = scores.to(dtype), log_baseline.to(dtype)
    share = f.new_full((), alpha)
    batch = _others_logsumexp(f) - math.log(samples - 1)
    log_a = torch.logaddexp(share.log() + batch, torch.log1p(-share) + baseline[:, None])
    diagonal = torch.eye(samples, dtype=torch.bool, device=f.device)
    joint = (f.diagonal()[:, None] - log_a).masked_fill(diagonal, 0.0).sum()
    product = (f - log_a.diagonal()[:, None]).masked_fill(diagonal, -torch.inf).exp().sum()
    return (product - joint) / (samples * (samples - 1)) - 1.0


class MutualInformationLoss(nn.Module):
    """Module form of `mutual_information_loss`.

    Args:
        alpha: Share of the batch in the baseline, from 0 to 1, dimensionless.

    Raises:
        ValueError: If ``alpha`` is out of range.
    """

    def __init__(self, *, alpha: float = 0.5) -> None:
        super().__init__()
        check_fraction("alpha", alpha)
        self.alpha = alpha

    @override
    def forward(self, scores: Tensor, log_baseline: Tensor) -> Tensor:
        return mutual_information_loss(scores, log_baseline, alpha=self.alpha)

    @override
    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


def _others_logsumexp(scores: Tensor) -> Tensor:
    """At ``[i, j]`` the log-sum-exp of row i without column j, from sums on both sides of j: quadratic in the batch."""
    edge = scores.new_full((len(scores), 1), -torch.inf)
    left = torch.cat([edge, scores[:, :-1].logcumsumexp(dim=1)], dim=1)
    right = torch.cat([edge, scores[:, 1:].flip(1).logcumsumexp(dim=1)], dim=1).flip(1)
    return torch.logaddexp(left, right)

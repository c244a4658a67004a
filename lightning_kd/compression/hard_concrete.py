"""Gates that learn which parts of a network to keep: the hard concrete distribution and its constraint."""

import math

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError

LOW, HIGH = -0.1, 1.1
TEMPERATURE = 2 / 3
SETTLED_SHARPNESS = 0.8
_LEAST_NOISE = 1e-6


def sampled_gates(log_alpha: Tensor, noise: Tensor) -> Tensor:
    r"""Gates drawn from the hard concrete distribution: exactly 0, exactly 1, or between, with gradient.

    .. math::
        z = \mathrm{clip}(1.2\, s - 0.1,\; 0,\; 1), \qquad
        s = \sigma\Bigl(\frac{\log(u / (1 - u)) + \log\alpha}{\beta}\Bigr), \quad \beta = \tfrac23

    Args:
        log_alpha: :math:`\log\alpha`, any shape, floating point: the larger, the more likely open.
        noise: :math:`u`, uniform in (0, 1), same shape; it is kept 1e-6 away from both ends.

    Returns:
        Gates in [0, 1], shape of ``log_alpha``.

    Raises:
        ShapeError: If the shapes differ.

    Source:
        Louizos, Welling and Kingma, "Learning Sparse Neural Networks through L0 Regularization", arXiv:1712.01312; the
        constants are those of TinyCLIP and DPHuBERT.

    Example:
        >>> sampled_gates(torch.tensor([0.0]), torch.tensor([0.5]))  # 1.2 / 2 - 0.1
        tensor([0.5000])
    """
    if noise.shape != log_alpha.shape:
        raise ShapeError(
            f"`noise` must have the shape of `log_alpha`, {tuple(log_alpha.shape)}, got {tuple(noise.shape)}."
        )
    soft = torch.sigmoid((torch.logit(noise, eps=_LEAST_NOISE) + log_alpha) / TEMPERATURE)
    return (soft * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def open_probability(log_alpha: Tensor) -> Tensor:
    r"""Probability that a gate is not exactly 0; the sum over the gates is the expected number of open ones.

    .. math::
        P(z \neq 0) = \sigma\bigl(\log\alpha - \beta \log(0.1 / 1.1)\bigr)

    Args:
        log_alpha: :math:`\log\alpha`, any shape, floating point.

    Returns:
        Probabilities, shape of ``log_alpha``.

    Example:
        >>> open_probability(torch.tensor([0.0]))
        tensor([0.8318])
    """
    return torch.sigmoid(log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


def settled_gates(log_alpha: Tensor) -> Tensor:
    r"""Gates without chance: as many of the smallest are 0 as are expected to be, the others keep a soft value.

    The soft value is :math:`\sigma(0.8 \log\alpha / \beta)`, and the number of zeros is the number of gates minus the
    sum of `open_probability`, rounded to the nearest, halves to even.

    Args:
        log_alpha: :math:`\log\alpha`, shape ``(n,)``, floating point.

    Returns:
        Gates in [0, 1), shape ``(n,)``.

    Raises:
        ShapeError: If ``log_alpha`` has not one axis.

    Example:
        >>> settled_gates(torch.tensor([2.0, 0.0, -1.0, -4.0]))
        tensor([0.9168, 0.5000, 0.2315, 0.0000])
    """
    if log_alpha.ndim != 1:
        raise ShapeError(f"`log_alpha` must have shape (gates,), got {tuple(log_alpha.shape)}.")
    gates = torch.sigmoid(SETTLED_SHARPNESS * log_alpha / TEMPERATURE)
    zeros = (len(log_alpha) - open_probability(log_alpha).sum()).round()
    rank = log_alpha.argsort().argsort()
    return gates.masked_fill(rank < zeros, 0.0)


def sparsity_penalty(
    sparsity: Tensor, target: float, linear: Tensor, quadratic: Tensor, *, two_sided: bool = False
) -> Tensor:
    r"""Lagrangian of the constraint that a network be at least so sparse, or exactly so sparse.

    .. math::
        L = \lambda_1 \max(0, \tau - s) + \lambda_2 \max(0, \tau - s)^2, \qquad
        L_\text{two-sided} = \lambda_1 (s - \tau) + \lambda_2 (s - \tau)^2

    The gates minimise it, the two multipliers maximise it. In the second form both may start at 0 and become negative.

    Args:
        sparsity: :math:`s`, share of the weights expected to be gone, from 0 to 1, shape ``()``.
        target: :math:`\tau`, the share that is asked for.
        linear: :math:`\lambda_1`, shape ``()``.
        quadratic: :math:`\lambda_2`, shape ``()``.
        two_sided: Whether more than the target is penalised too, as by DPHuBERT.

    Returns:
        The penalty, dimensionless, shape ``()``; one-sided it is 0 once the target is met.

    Source:
        Wu et al., "TinyCLIP: CLIP Distillation via Affinity Mimicking and Weight Inheritance", arXiv:2309.12314; two
        sides: Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models",
        arXiv:2305.17651.

    Example:
        >>> ten = torch.tensor(10.0)
        >>> sparsity_penalty(torch.tensor(0.25), 0.75, ten, ten)  # 10 / 2 + 10 / 4
        tensor(7.5000)
    """
    gap = sparsity - target if two_sided else (target - sparsity).clamp(min=0.0)
    return linear * gap + quadratic * gap.square()


class HardConcreteGate(nn.Module):
    """Gates for the heads, units or channels of one layer: multiply its outputs by them.

    In training each call draws the gates anew, one for the whole batch; in evaluation they are settled.

    Args:
        gates: How many.
        drop_rate: Share expected to be closed where the noise is 1/2, in (0, 1): ``log_alpha`` starts around
            ``log((1 - drop_rate) / drop_rate)``, with a standard deviation of 0.01.

    Raises:
        ValueError: If ``gates`` is not above 0 or ``drop_rate`` is not in (0, 1).

    Example:
        >>> gate = HardConcreteGate(12).eval()
        >>> gate().shape
        torch.Size([12])
    """

    def __init__(self, gates: int, *, drop_rate: float = 0.01) -> None:
        super().__init__()
        check_positive("gates", gates)
        if not 0 < drop_rate < 1:
            raise ValueError(f"`drop_rate` must be in (0, 1), got {drop_rate!r}.")
        self.log_alpha = nn.Parameter(torch.empty(gates))
        nn.init.normal_(self.log_alpha, math.log((1 - drop_rate) / drop_rate), 0.01)

    @override
    def forward(self) -> Tensor:
        if not self.training:
            return settled_gates(self.log_alpha)
        return sampled_gates(self.log_alpha, torch.rand_like(self.log_alpha))

    def expected_open(self) -> Tensor:
        """Expected number of gates that are not 0, with gradient, shape ``()``."""
        return open_probability(self.log_alpha).sum()

    @override
    def extra_repr(self) -> str:
        return f"gates={len(self.log_alpha)}"


class SparsityConstraint(nn.Module):
    """The two multipliers of `sparsity_penalty`.

    Give its parameters a group of their own in an optimiser with ``maximize=True``; the published code reaches the
    same by a negative learning rate. `lightning_kd.schedules.Ramp` raises the target over the first steps.

    Args:
        initial: Start of both multipliers.
        two_sided: Whether more than the target is penalised too.

    Example:
        >>> SparsityConstraint()(torch.tensor(1.0), 0.25).item()
        0.0
    """

    def __init__(self, *, initial: float = 10.0, two_sided: bool = False) -> None:
        super().__init__()
        self.two_sided = two_sided
        self.linear = nn.Parameter(torch.tensor(float(initial)))
        self.quadratic = nn.Parameter(torch.tensor(float(initial)))

    @override
    def forward(self, sparsity: Tensor, target: float) -> Tensor:
        return sparsity_penalty(sparsity, target, self.linear, self.quadratic, two_sided=self.two_sided)

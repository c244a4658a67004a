"""Weights and activations of few levels, as functions; gradients pass straight through the rounding."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError

TERNARY_THRESHOLD = 0.7


class Buckets(NamedTuple):
    """A tensor in buckets, each scaled to the range from 0 to 1.

    Attributes:
        scaled: Values from 0 to 1, shape ``(buckets, bucket size)``; the last bucket repeats its last value.
        low: Smallest value of each bucket, shape ``(buckets, 1)``.
        span: Largest minus smallest value of each bucket, shape ``(buckets, 1)``; 0 where all are equal.
        shape: Shape of the tensor.
    """

    scaled: Tensor
    low: Tensor
    span: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, weight: Tensor, bucket_size: int | None) -> "Buckets":
        """Cut a tensor into buckets of consecutive elements.

        Args:
            weight: Any shape, floating point.
            bucket_size: Elements of a bucket; ``None`` makes one bucket.

        Returns:
            The buckets, cut from the graph.
        """
        flat = weight.detach().flatten()
        size = len(flat) if bucket_size is None else min(bucket_size, len(flat))
        rows = torch.cat([flat, flat[-1:].expand(-len(flat) % size)]).reshape(-1, size)
        low, high = rows.aminmax(dim=1, keepdim=True)
        span = high - low
        return cls((rows - low) / span.where(span > 0, 1.0), low, span, weight.shape)

    def restore(self, scaled: Tensor) -> Tensor:
        """The tensor whose scaled values are these."""
        return (scaled * self.span + self.low).flatten()[: self.shape.numel()].reshape(self.shape)


def uniform_quantize(
    weight: Tensor, *, levels: int = 16, bucket_size: int | None = 256, stochastic: bool = False
) -> Tensor:
    r"""Round weights to equidistant levels between the smallest and the largest of their bucket.

    .. math::
        u = \frac{w - \min w}{\max w - \min w}, \qquad
        Q(w) = \min w + (\max w - \min w) \frac{\mathrm{round}(u (s - 1))}{s - 1}

    The gradient is that of :math:`w` itself.

    Args:
        weight: Any shape, floating point.
        levels: :math:`s`, at least 2: ``2 ** bits``.
        bucket_size: How many consecutive weights share a range; ``None`` takes all.
        stochastic: Whether to round up with the probability of the fraction, so that the mean is right, instead of to
            the nearest level.

    Returns:
        Weights of at most ``levels`` values per bucket, shape and dtype of ``weight``.

    Raises:
        ValueError: If ``levels`` is below 2 or ``bucket_size`` is not above 0.

    Source:
        Polino, Pascanu and Alistarh, "Model compression via distillation and quantization", arXiv:1802.05668.

    Example:
        >>> uniform_quantize(torch.tensor([-1.0, -0.2, 0.1, 0.55, 1.0]), levels=4)
        tensor([-1.0000, -0.3333,  0.3333,  0.3333,  1.0000])
    """
    check_levels("levels", levels)
    if bucket_size is not None:
        check_positive("bucket_size", bucket_size)
    buckets = Buckets.of(weight, bucket_size)
    steps = buckets.scaled * (levels - 1)
    rounded = (steps + torch.rand_like(steps)).floor() if stochastic else steps.round()
    return straight_through(weight, buckets.restore(rounded.clamp(max=levels - 1) / (levels - 1)))


def assign_levels(scaled: Tensor, levels: Tensor) -> Tensor:
    """Index of the nearest level for every value; halfway between two it is the lower one.

    Args:
        scaled: Any shape.
        levels: Positions of the levels in ascending order, shape ``(K,)``.

    Returns:
        Indices from 0 to K - 1, shape of ``scaled``.

    Example:
        >>> assign_levels(torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0]), torch.tensor([0.05, 0.5, 0.9]))
        tensor([0, 0, 1, 2, 2])
    """
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)


def quantize_to_levels(weight: Tensor, levels: Tensor, *, bucket_size: int | None = 256) -> Tensor:
    r"""Move each weight to the nearest level, with gradient to the levels' positions only.

    With the weights of a bucket scaled to the range from 0 to 1, the gradient of a level is the sum over the weights
    assigned to it of the bucket's range times the gradient of the weight.

    Args:
        weight: Any shape, floating point; it gets no gradient.
        levels: Positions of the levels in scaled space in any order, shape ``(K,)``.
        bucket_size: How many consecutive weights share a range; ``None`` takes all.

    Returns:
        Weights of at most K values per bucket, shape of ``weight``.

    Source:
        Polino, Pascanu and Alistarh, arXiv:1802.05668, "differentiable quantization". Levels are sorted on the way, so
        that they may cross in training.

    Example:
        >>> levels = torch.tensor([0.5, 0.05, 0.9], requires_grad=True)
        >>> weight = quantize_to_levels(torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0]), levels)
        >>> (weight * torch.arange(1.0, 6.0)).sum().backward()
        >>> weight.detach(), levels.grad
        (tensor([0.0500, 0.0500, 0.5000, 0.9000, 0.9000]), tensor([3., 3., 9.]))
    """
    buckets = Buckets.of(weight, bucket_size)
    ordered = levels.sort().values
    return buckets.restore(ordered[assign_levels(buckets.scaled, ordered.detach())])


def ternarize(weight: Tensor, *, per_row: bool = True, clip: float = 2.5) -> Tensor:
    r"""Weights of the three values :math:`-\alpha`, 0 and :math:`\alpha`, which take 2 bits.

    .. math::
        m = \mathrm{mean} |w|, \qquad
        Q(w) = \alpha \, \mathrm{sign}(w) \, [\,|w| > 0.7 m\,], \qquad
        \alpha = \mathrm{mean}\{ |w| : |w| > 0.7 m \}

    of the weights limited to :math:`[-c, c]`. The gradient is that of :math:`w` itself inside of that range and 0
    outside.

    Args:
        weight: Shape ``(output, ...)`` with at least two axes, floating point.
        per_row: Whether each output has its own :math:`\alpha`; else all share one.
        clip: :math:`c > 0`, in the unit of the weights.

    Returns:
        Weights of three values, shape and dtype of ``weight``.

    Raises:
        ShapeError: If ``weight`` has fewer than two axes.
        ValueError: If ``clip`` is not above 0.

    Source:
        Zhang et al., "TernaryBERT: Distillation-aware Ultra-low Bit BERT", arXiv:2009.12812, after Li et al.,
        arXiv:1605.04711. The code of Teacher Intervention has one alpha for all of a linear layer, ``per_row=False``.

    Example:
        >>> ternarize(torch.tensor([[0.1, -0.9, 0.4, 0.3]]))  # threshold 0.2975
        tensor([[ 0.0000, -0.5333,  0.5333,  0.5333]])
    """
    check_positive("clip", clip)
    if weight.ndim < 2:
        raise ShapeError(f"`weight` must have shape (output, input, ...), got {tuple(weight.shape)}.")
    limited = weight.detach().clamp(-clip, clip)
    rows = limited.flatten(1) if per_row else limited.reshape(1, -1)
    magnitudes = rows.abs()
    kept = magnitudes > TERNARY_THRESHOLD * magnitudes.mean(dim=1, keepdim=True)
    alpha = (magnitudes * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp(min=1)
    return straight_through(weight, (alpha * kept * rows.sign()).reshape(weight.shape), clip=clip)


def quantize_activation(activation: Tensor, *, bits: int = 8, clip: float | None = None) -> Tensor:
    r"""Round activations to a symmetric grid that reaches to the largest magnitude in the tensor.

    .. math::
        Q(x) = \frac{\mathrm{round}(s x)}{s}, \qquad s = \frac{2^{b-1} - 1}{\max |x|}

    Args:
        activation: Any shape, floating point.
        bits: :math:`b`, from 2 to 16.
        clip: Activations are limited to this magnitude before, and get no gradient beyond; ``None`` limits nothing.

    Returns:
        Activations of at most :math:`2^b - 1` values, shape and dtype of ``activation``.

    Raises:
        ValueError: If ``bits`` is not from 2 to 16 or ``clip`` is not above 0.

    Source:
        Zhang et al., arXiv:2009.12812, which limits activations to 2.5.

    Example:
        >>> quantize_activation(torch.tensor([0.4, -1.0, 3.0]), bits=3)  # grid of 1
        tensor([ 0., -1.,  3.])
    """
    check_bits(bits)
    if clip is not None:
        check_positive("clip", clip)
    limited = activation.detach() if clip is None else activation.detach().clamp(-clip, clip)
    largest = limited.abs().amax() if limited.numel() else limited.new_zeros(())
    scale = (2 ** (bits - 1) - 1) / largest.where(largest > 0, 1.0)
    return straight_through(activation, (limited * scale).round() / scale, clip=clip)


def straight_through(value: Tensor, quantized: Tensor, *, clip: float | None = None) -> Tensor:
    """``quantized`` with the gradient of ``value``, inside of ``clip`` if one is given."""
    passed = value if clip is None else value * (value.detach().abs() < clip)
    return quantized.detach() + (passed - passed.detach())


def check_levels(name: str, levels: object) -> None:
    """Raise `ValueError` unless ``levels`` is a whole number of at least 2."""
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise ValueError(f"`{name}` must be a whole number of at least 2, got {levels!r}.")


def check_bits(bits: object) -> None:
    """Raise `ValueError` unless ``bits`` is a whole number from 2 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 16:
        raise ValueError(f"`bits` must be a whole number from 2 to 16, got {bits!r}.")

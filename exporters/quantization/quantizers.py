"""Fake quantisers: tensors rounded to what an integer holds, with gradients that pass through."""

from typing import Literal

import torch
from torch import Tensor, nn

ActivationRange = Literal["affine", "symmetric"]
Observing = Literal["never", "with_gradients", "always"]
"""When ranges are measured; validation and dry runs compute no gradients."""

INT8 = (-128, 127)

_SMALLEST_SCALE = 1e-8
_MOST_SORTED = 2**18


class Quantizer(nn.Module):
    """State of a quantiser: devices, DDP and optimisers see it, state dicts do not.

    It is used through methods, never called, so that no hook and no search for layers takes it for one.

    Args:
        learned: Number of scales to learn, 0 for none.

    Attributes:
        enabled: Whether it rounds; else tensors pass unchanged.
        log_ratio: Natural logarithm of each learned scale over the measured one, shape ``(learned,)``.
    """

    def __init__(self, learned: int) -> None:
        super().__init__()
        self.enabled = False
        self.log_ratio = nn.Parameter(torch.zeros(learned)) if learned else None

    def _save_to_state_dict(self, destination: object, prefix: str, keep_vars: bool) -> None:
        """Save nothing: a checkpoint is that of the plain network."""

    def _load_from_state_dict(self, *_: object) -> None:
        """Expect nothing."""

    def _passed(self, tensor: Tensor) -> Tensor:
        """The tensor itself, with a gradient of zero for what is learned: DDP waits for one."""
        return tensor if self.log_ratio is None else tensor + self.log_ratio[:0].sum()


class WeightQuantizer(Quantizer):
    """Rounds a weight to signed integers, symmetrically, with one scale for each output channel.

    Args:
        channels: Output channels, dimension 0 of the weight.
        bits: Width of the integers, 2 to 8.
        learned: Whether scales are learned beside the measured ones.
    """

    def __init__(self, channels: int, *, bits: int, learned: bool) -> None:
        super().__init__(channels if learned else 0)
        self.largest = 2 ** (bits - 1) - 1

    def scale(self, weight: Tensor) -> Tensor:
        """Scale of each channel, shape ``(channels,)``: its largest magnitude over the largest integer.

        It is measured anew for every weight, so that scaling a channel, as batch normalisation does, scales it along.
        """
        largest = weight.detach().flatten(1).abs().amax(dim=1)
        scale: Tensor = (largest / self.largest).clamp_min(_SMALLEST_SCALE)
        return scale if self.log_ratio is None else scale * self.log_ratio.exp()

    def fake(self, weight: Tensor) -> Tensor:
        """The rounded weight, in its own type; the gradient passes where nothing was clipped."""
        if not self.enabled:
            return self._passed(weight)
        wide = _widened(weight)
        scale = self.scale(wide)
        if self.log_ratio is not None:
            factor = (wide[0].numel() * self.largest) ** -0.5
            largest = torch.full_like(scale, self.largest).reshape(-1, *[1] * (wide.ndim - 1))
            return learned_step(wide, scale.reshape(largest.shape), -largest, largest, factor).to(weight.dtype)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        limits = (0, -self.largest, self.largest)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(wide, scale.float(), zero_point, *limits)
        return rounded.to(weight.dtype)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """Start the learned scales where the squared error of rounding is smallest."""
        if self.log_ratio is None:
            return
        measured = (weight.flatten(1).abs().amax(dim=1) / self.largest).clamp_min(_SMALLEST_SCALE)
        ratios = torch.linspace(0.3, 1.0, 36, device=weight.device)
        errors = []
        for ratio in ratios:
            scale = (measured * ratio).unsqueeze(1)
            rounded = (weight.flatten(1) / scale).round().clamp(-self.largest, self.largest) * scale
            errors.append((rounded - weight.flatten(1)).square().sum(dim=1))
        self.log_ratio.copy_(ratios[torch.stack(errors).argmin(dim=0)].log())

    @torch.no_grad()
    def integers(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The weight as int8 of the same shape, and the scale of each channel."""
        scale = self.scale(weight)
        shape = (-1, *[1] * (weight.ndim - 1))
        integers = (weight / scale.reshape(shape)).round().clamp(-self.largest, self.largest)
        return integers.to(torch.int8), scale


class ActivationQuantizer(Quantizer):
    """Rounds an activation to int8 with one scale for the whole tensor, whose range it measures in training.

    The range is the mean of the batches' ranges at first, and their moving average once that is longer than
    ``1 / momentum`` batches; without a momentum it holds all of them. It always includes zero, which is a multiple of
    the scale.

    Args:
        kind: ``"affine"`` uses all 256 integers for the range; ``"symmetric"`` maps its larger end to 127, with a zero
            point of 0, as TensorRT requires.
        momentum: Share of a new batch in the moving average; ``None`` for the range of all batches.
        percentile: Per cent of a batch's values that its range must hold; ``None`` for all of them.
        learned: Whether a scale is learned beside the measured one.
        non_negative: Whether only what is above zero counts, because a ReLU follows.
    """

    minimum: Tensor
    maximum: Tensor
    batches: Tensor

    def __init__(
        self,
        *,
        kind: ActivationRange,
        momentum: float | None,
        percentile: float | None,
        learned: bool,
        non_negative: bool = False,
    ) -> None:
        super().__init__(1 if learned else 0)
        self.kind = kind
        self.momentum = momentum
        self.percentile = percentile
        self.non_negative = non_negative
        self.observing: Observing = "with_gradients"
        self.constants = (1.0, 0)
        for name in ("minimum", "maximum"):
            self.register_buffer(name, torch.zeros(()), persistent=False)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def observe(self, tensor: Tensor) -> None:
        """Take the range of a batch into account, without waiting for the device."""
        low, high = self._range(tensor.detach().float())
        self.batches += 1
        if self.momentum is None:
            # Both start at zero, which every range includes.
            self.minimum.copy_(torch.minimum(self.minimum, low))
            self.maximum.copy_(torch.maximum(self.maximum, high))
            return
        share = (1.0 / self.batches).clamp_min(self.momentum)
        self.minimum.lerp_(low.clamp_max(0.0), share)
        self.maximum.lerp_(high.clamp_min(0.0), share)

    def _range(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        if self.non_negative:
            tensor = tensor.clamp_min(0.0)
        if self.percentile is None:
            low, high = tensor.aminmax()
            return low, high
        flat = tensor.flatten()
        flat = flat[:: 1 + len(flat) // _MOST_SORTED]
        ends = flat.new_tensor([(100.0 - self.percentile) / 100.0, self.percentile / 100.0])
        low, high = torch.quantile(flat, ends)
        return low, high

    def scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point (int32), both of shape ``()``."""
        smallest, largest = INT8
        if self.kind == "symmetric":
            scale = (torch.maximum(-self.minimum, self.maximum) / largest).clamp_min(_SMALLEST_SCALE)
            zero_point = torch.zeros_like(scale)
        else:
            scale = ((self.maximum - self.minimum) / (largest - smallest)).clamp_min(_SMALLEST_SCALE)
            zero_point = (smallest - self.minimum / scale).round().clamp(smallest, largest)
        if self.log_ratio is not None:
            scale = scale * self.log_ratio.exp().squeeze()
        return scale, zero_point.to(torch.int32)

    def freeze(self) -> None:
        """Note scale and zero point as numbers, which a graph can hold, in ``constants``."""
        scale, zero_point = self.scale_and_zero_point()
        self.constants = (scale.item(), int(zero_point.item()))

    def fake(self, tensor: Tensor) -> Tensor:
        """The rounded tensor, in its own type; the gradient passes where nothing was clipped."""
        if self.observing == "always" or (self.observing == "with_gradients" and torch.is_grad_enabled()):
            self.observe(tensor)
        if not self.enabled:
            return self._passed(tensor)
        wide = _widened(tensor)
        scale, zero_point = self.scale_and_zero_point()
        smallest, largest = INT8
        if self.log_ratio is None:
            rounded = torch.fake_quantize_per_tensor_affine(wide, scale, zero_point, smallest, largest)
        else:
            factor = (wide.numel() * largest) ** -0.5
            rounded = learned_step(wide, scale, smallest - zero_point, largest - zero_point, factor)
        return rounded.to(tensor.dtype)


def learned_step(tensor: Tensor, scale: Tensor, smallest: Tensor, largest: Tensor, gradient_factor: float) -> Tensor:
    r"""Round to multiples of a scale that is learned.

    .. math::
        y = s \cdot \mathrm{round}(\mathrm{clip}(x / s, q_{min}, q_{max}))

    The gradient to the tensor passes where nothing was clipped; that to the scale is the rounding error
    :math:`y/s - x/s` there, and the limit elsewhere, times ``gradient_factor``.

    Args:
        tensor: What is rounded, any shape, floating point.
        scale: :math:`s > 0`, a shape that broadcasts to that of ``tensor``.
        smallest: :math:`q_{min}`.
        largest: :math:`q_{max}`.
        gradient_factor: Factor of the gradient to ``scale``, dimensionless.

    Returns:
        The rounded tensor, of the shape of ``tensor``.

    Source:
        Esser et al., "Learned Step Size Quantization", arXiv:1902.08153, equations 1 to 3.

    Example:
        >>> smallest, largest = torch.tensor(-4), torch.tensor(3)
        >>> learned_step(torch.tensor([0.9, -3.0]), torch.tensor(0.5), smallest, largest, 1.0)
        tensor([ 1., -2.])
    """
    scale = scale * gradient_factor + (scale * (1.0 - gradient_factor)).detach()
    clipped = torch.clamp(tensor / scale, smallest, largest)
    return (clipped + (clipped.round() - clipped).detach()) * scale


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

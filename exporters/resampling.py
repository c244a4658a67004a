"""Images brought to another size by products with matrices, where converters fail or err."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten
# Keys's kernel as libraries for images and PyTorch with antialiasing have it, and as PyTorch has it without.
_SOFT, _SHARP = -0.5, -0.75


def resample(
    input: Tensor,
    output_size: Sequence[Any] | None,
    scale_factors: Sequence[float] | None,
    *,
    mode: str,
    align_corners: bool = False,
    antialias: bool = False,
) -> Tensor:
    """Resample images as `torch.nn.functional.interpolate` does, by a product with a matrix in each direction.

    Source: PyTorch's ``UpSample.h`` and ``UpSampleKernel.cpp``, which say where a sample is taken.

    Args:
        input: Images ``(N, C, H, W)``.
        output_size: Height and width of the result; ``None`` where ``scale_factors`` says it.
        scale_factors: Factors of height and width.
        mode: ``"nearest"``, ``"nearest-exact"``, ``"bilinear"`` or ``"bicubic"``.
        align_corners: Whether the centres of the corner pixels stay where they are.
        antialias: Whether a smaller result averages over more samples.

    Returns:
        Images ``(N, C, height, width)``.

    Example:
        >>> resample(torch.arange(4.0).reshape(1, 1, 1, 4), (1, 2), None, mode="bilinear")
        tensor([[[[0.5000, 2.5000]]]])
    """
    factors = (None, None) if scale_factors is None or align_corners else scale_factors
    lengths = output_size or scaled_sizes(input, scale_factors or ())
    axes = [_Axis(*numbers, align_corners) for numbers in zip(input.shape[-2:], lengths, factors, strict=True)]
    if mode.startswith("nearest"):
        down, across = (axis.nearest(0.5 * (mode == "nearest-exact")) for axis in axes)
        output = input.contiguous().index_select(2, down).index_select(3, across)
        return output.contiguous(memory_format=_memory_format(input))
    down, across = (axis.matrix(mode, antialias=antialias).to(input.dtype) for axis in axes)
    output = F.linear(F.linear(input, across).mT, down).mT
    # As PyTorch's operators do; the program may view the result without its channels in between.
    return output.contiguous(memory_format=_memory_format(input))


def _memory_format(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if is_last else torch.contiguous_format


class _Axis:
    """One direction of an image: samples at 0, 1, 2 and so on, and as many places between them as are wanted.

    Lengths enter as tensors, because converters lack floating-point arithmetic of sizes.
    """

    def __init__(self, size: Any, length: Any, factor: float | None, align_corners: bool) -> None:
        self._samples = torch.arange(size, dtype=torch.float32)
        self._places = torch.arange(length, dtype=torch.float32)
        self._factor = factor
        self._align_corners = align_corners

    @functools.cached_property
    def _last(self) -> Tensor:
        return self._samples[-1:]

    @functools.cached_property
    def _step(self) -> Tensor | float:
        """Samples from one place to the next."""
        if self._factor:
            return 1 / self._factor
        place = self._places[-1:]
        if self._align_corners:
            return self._last * place.clamp(max=1) / place.clamp(min=1)
        return (self._last + 1) / (place + 1)

    def nearest(self, offset: float) -> Tensor:
        """Index of the sample for each place."""
        return ((self._places + offset) * self._step).floor().minimum(self._last).long()

    def matrix(self, mode: str, *, antialias: bool) -> Tensor:
        """What each sample adds at each place: ``(places, samples)``, rows that sum to 1."""
        places = self._places.unsqueeze(1)
        if antialias:
            width = self._step.clamp(min=1) if isinstance(self._step, Tensor) else max(self._step, 1.0)
            distances = ((self._samples + 0.5 - (places + 0.5) * self._step) / width).abs()
            weights = _hat(distances) if mode == "bilinear" else _cubic(distances, _SOFT)
            return weights / weights.sum(1, keepdim=True)
        centres = places * self._step if self._align_corners else (places + 0.5) * self._step - 0.5
        if mode == "bilinear":
            return self._of(centres)
        before = centres.floor()
        taps = (before + offset for offset in (-1, 0, 1, 2))
        return sum((_cubic((tap - centres).abs(), _SHARP) * self._of(tap) for tap in taps), torch.zeros(()))

    def _of(self, centres: Tensor) -> Tensor:
        """Shares of the two samples around each centre; beyond an end that is the sample at the end."""
        return _hat((self._samples - centres.clamp(min=0).minimum(self._last)).abs())


def _hat(distances: Tensor) -> Tensor:
    return (1 - distances).clamp(min=0)


def _cubic(distances: Tensor, slope: float) -> Tensor:
    """Keys's kernel; both its parts are 0 where the other one holds."""
    near, far = distances.clamp(max=1), distances.clamp(1, 2)
    inner = ((slope + 2) * near - (slope + 3)) * near * near + 1
    return inner + slope * (((far - 5) * far + 8) * far - 4)


def scaled_sizes(input: Tensor, factors: Sequence[float]) -> list[Any]:
    """Height and width of images times factors, rounded down."""
    return [_times(size, float(factor)) for size, factor in zip(input.shape[-2:], factors, strict=True)]


def _times(size: Any, factor: float) -> Any:
    """The product, rounded down; in whole numbers where that is possible, because converters lack others for sizes."""
    if factor.is_integer():
        return size * int(factor)
    return size // int(1 / factor) if (1 / factor).is_integer() else torch.sym_int(size * factor)


def has_whole_factors(input: Tensor, output_size: Sequence[Any] | None, factors: Sequence[float] | None) -> bool:
    """Whether an operator repeats samples a whole number of times, which every converter understands.

    Args:
        input: Images ``(N, C, H, W)``.
        output_size: Height and width of the result, if given.
        factors: Factors of height and width, if given.
    """
    if factors is not None:
        return all(float(factor).is_integer() for factor in factors)
    pairs = list(zip(input.shape[-2:], output_size or (), strict=True))
    return all(isinstance(size, int) for pair in pairs for size in pair) and not any(
        length % size for size, length in pairs
    )


def _operator(mode: str, input: Tensor, output_size: Any, *options: Any) -> Any:
    """An operator of ATen, whose options are the factors or, for kernels that blend, ``align_corners`` and those."""
    *align_corners, factors = options
    return resample(input, output_size, factors, mode=mode, align_corners=any(align_corners))


NEAREST, BILINEAR, BICUBIC = aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec
RESAMPLING_DECOMPOSITIONS: Mapping[Any, Callable[..., Any]] = {
    NEAREST: functools.partial(_operator, "nearest"),
    BILINEAR: functools.partial(_operator, "bilinear"),
    BICUBIC: functools.partial(_operator, "bicubic"),
}
"""Operators without antialiasing, for converters that lack some of their sizes."""

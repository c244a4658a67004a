"""Resampling of images."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.errors import ConversionError
from exporters.mil.arguments import Arguments, Operator


def grid(size: int, count: int, mode: str) -> Tensor:
    """Where ``count`` samples of a dimension of ``size`` elements lie, in elements; Core ML's names of the modes."""
    steps = torch.arange(count, dtype=torch.float64)
    if mode == "ALIGN_CORNERS" and count == 1:
        points = torch.full((1,), (size - 1) / 2, dtype=torch.float64)
    elif mode in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        points = steps * ((size - 1) / max(count - 1, 1))
    elif mode == "DEFAULT":
        points = steps * (size / count)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / count
        points = (steps + 0.5) * delta
    else:
        points = (steps + 0.5) * (size / count) - 0.5
    return points.clamp(0, size - 1)


def _linear(x: Tensor, axis: int, points: Tensor) -> Tensor:
    lower = points.floor().long()
    upper = (lower + 1).clamp(max=x.shape[axis] - 1)
    weight = (points - lower).to(x.dtype).reshape([-1 if dimension == axis else 1 for dimension in range(x.ndim)])
    return x.index_select(axis, lower) * (1 - weight) + x.index_select(axis, upper) * weight


def _nearest(x: Tensor, axis: int, points: Tensor, mode: str) -> Tensor:
    # The default grid starts at the first element's edge and is rounded down; the others are at centres.
    positions = points if mode == "DEFAULT" else points + 0.5
    return x.index_select(axis, (positions + 1e-9).floor().long().clamp(max=x.shape[axis] - 1))


def _resized(x: Tensor, sizes: list[int], *, mode: str, linear: bool) -> Tensor:
    for axis, count in enumerate(sizes, start=x.ndim - len(sizes)):
        points = grid(x.shape[axis], count, mode)
        x = _linear(x, axis, points) if linear else _nearest(x, axis, points, mode)
    return x


def _target(inputs: Arguments) -> list[int]:
    return [inputs.integer("target_size_height"), inputs.integer("target_size_width")]


def _scaled(inputs: Arguments) -> list[int]:
    factors = inputs.number("scale_factor_height"), inputs.number("scale_factor_width")
    return [math.floor(size * factor) for size, factor in zip(inputs.tensor("x").shape[-2:], factors, strict=True)]


def _resize_bilinear(inputs: Arguments) -> Tensor:
    return _resized(inputs.tensor("x"), _target(inputs), mode=inputs.text("sampling_mode"), linear=True)


def _resize_nearest(inputs: Arguments) -> Tensor:
    return _resized(inputs.tensor("x"), _target(inputs), mode="DEFAULT", linear=False)


def _upsample_bilinear(inputs: Arguments) -> Tensor:
    mode = "STRICT_ALIGN_CORNERS" if inputs.flag("align_corners") else "UNALIGN_CORNERS"
    return _resized(inputs.tensor("x"), _scaled(inputs), mode=mode, linear=True)


def _upsample_nearest(inputs: Arguments) -> Tensor:
    return _resized(inputs.tensor("x"), _scaled(inputs), mode="DEFAULT", linear=False)


def _resize(inputs: Arguments) -> Tensor:
    x, count = inputs.tensor("x"), inputs.integer("resized_dims")
    sizes = inputs.integers("shape")[-count:]
    sizes = [size or old for size, old in zip(sizes, x.shape[-count:], strict=True)]
    linear = inputs.text("interpolation_mode") == "LINEAR"
    return _resized(x, sizes, mode=inputs.text("sampling_mode"), linear=linear)


def _resample(inputs: Arguments) -> Tensor:
    points, corners = inputs.tensor("coordinates").float(), inputs.flag("align_corners")
    match inputs.text("coordinates_mode"):
        case "normalized_zero_to_one":
            points = points * 2 - 1
        case "unnormalized":
            last = torch.tensor(inputs.tensor("x").shape[:1:-1]) - 1
            corners, points = True, points * 2 / last - 1
    return F.grid_sample(
        inputs.tensor("x"),
        points,
        mode=inputs.text("sampling_mode"),
        padding_mode=_padding(inputs, corners=corners),
        align_corners=corners,
    )


def _padding(inputs: Arguments, *, corners: bool) -> str:
    mode = inputs.text("padding_mode")
    zero = inputs.number("padding_value") == 0
    # PyTorch reflects at the centres of the border elements with aligned corners, at their outer edges without.
    reflected = "reflection" if corners else "symmetric"
    known = {"border": "border", reflected: "reflection", **({"constant": "zeros"} if zero else {})}
    if mode not in known:
        raise ConversionError(
            f"operator `resample` must pad with zeros, the border or its reflection to be evaluated, got {mode!r}."
        )
    return known[mode]


OPERATORS: Mapping[str, Operator] = {
    "resample": _resample,
    "resize": _resize,
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}

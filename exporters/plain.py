"""Operators that no converter, or not every one, translates rightly, replaced while a network is captured."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from exporters.decompositions import pad_circularly
from exporters.resampling import resample, scaled_sizes

_INTERPOLATE, _PAD = inspect.signature(F.interpolate), inspect.signature(F.pad)


class PlainOperators(TorchFunctionMode):
    """Inside, PyTorch resizes images and pads circularly by operators that every runtime has, where that is necessary.

    `interpolate` uses matrices with antialiasing, as vision transformers resample their position embeddings, and
    indices with ``nearest-exact`` between sizes that are not known. Sizes that are not known are computed in the graph.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> expected = F.interpolate(image, size=(3, 5), mode="bicubic", antialias=True)
        >>> with PlainOperators():
        ...     found = F.interpolate(image, size=(3, 5), mode="bicubic", antialias=True)
        >>> torch.allclose(found, expected, atol=1e-5)
        True
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what stands for it."""
        del types
        if func is F.interpolate:
            arguments = _arguments(_INTERPOLATE, args, kwargs)
            if _is_resized_by_few(**arguments):
                return _interpolate(**arguments)
        if func is F.pad:
            arguments = _arguments(_PAD, args, kwargs)
            if _is_circular(**arguments):
                return pad_circularly(arguments["input"], arguments["pad"])
        return func(*args, **(kwargs or {}))


def _arguments(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    call = signature.bind(*args, **(kwargs or {}))
    call.apply_defaults()
    return call.arguments


def _is_resized_by_few(
    input: Tensor, size: Any, scale_factor: Any, mode: str, antialias: bool, **_options: Any
) -> bool:
    if input.ndim != 4 or (size is None) == (scale_factor is None):
        return False
    if antialias:
        return mode in ("bilinear", "bicubic")
    sizes = (*input.shape[-2:], *_pair(size))
    return mode == "nearest-exact" and any(isinstance(length, torch.SymInt) for length in sizes)


def _interpolate(
    input: Tensor,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    antialias: bool,
) -> Tensor:
    factors = None if scale_factor is None else _pair(scale_factor)
    if factors is not None and recompute_scale_factor:
        size, factors = scaled_sizes(input, factors), None
    sizes = None if size is None else _pair(size)
    return resample(input, sizes, factors, mode=mode, align_corners=bool(align_corners), antialias=antialias)


def _is_circular(input: Tensor, pad: Sequence[int], mode: str, **_options: Any) -> bool:
    """Whether a call is right and circular; PyTorch has the errors of others."""
    if mode != "circular" or len(pad) not in range(2, 2 * input.ndim, 2):
        return False
    sizes: Sequence[Any] = [size for size in reversed(input.shape) for _ in range(2)]
    return all(
        end >= 0 and (isinstance(size, torch.SymInt) or end <= size) for end, size in zip(pad, sizes, strict=False)
    )


def _pair(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else (value, value)

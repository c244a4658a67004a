"""How a tapped tensor is laid out, and how to read every layout in one form: channels first, then the grid.

| axes | shape | typical source |
|---|---|---|
| ``NCHW`` | batch, channels, height, width | convolutional networks |
| ``NHWC`` | batch, height, width, channels | Swin and other channels-last networks |
| ``NLD`` | batch, prefix tokens + height * width, width | vision transformers |
| ``NTD`` | batch, frames, width | speech encoders |
| ``ND`` | batch, width | pooled features, logits |
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from lightning_kd.errors import LayoutError

Axes = Literal["NCHW", "NHWC", "NLD", "NTD", "ND"]
AXES: tuple[Axes, ...] = get_args(Axes)
_RANK_OF = {axes: len(axes) for axes in AXES}


@dataclass(frozen=True, slots=True)
class Layout:
    """Meaning of the axes of one tapped tensor.

    Attributes:
        axes: One of ``"NCHW"``, ``"NHWC"``, ``"NLD"``, ``"NTD"``, ``"ND"``.
        prefix_tokens: Class, distillation and register tokens before the patches (``"NLD"`` only).
        grid: Height and width of the patch grid (``"NLD"`` only); ``None`` means a square grid.
    """

    axes: Axes
    prefix_tokens: int = 0
    grid: tuple[int, int] | None = None

    def channels_first(self, feature: Tensor) -> Tensor:
        """Return ``feature`` as a view of shape ``(N, C, *grid)``, prefix tokens dropped.

        The grid has two axes for maps and patch tokens, one for frames and none for pooled features.

        Args:
            feature: Tapped tensor in this layout.

        Returns:
            The same values, shape ``(N, C, H, W)``, ``(N, C, T)`` or ``(N, C)``.

        Raises:
            LayoutError: If the rank does not fit the axes, or the tokens do not fill a grid.

        Example:
            >>> import torch
            >>> Layout("NLD", prefix_tokens=1).channels_first(torch.zeros(2, 1 + 4 * 4, 192)).shape
            torch.Size([2, 192, 4, 4])
        """
        if feature.ndim != _RANK_OF[self.axes]:
            raise LayoutError(
                f"a feature of layout {self.axes!r} has {_RANK_OF[self.axes]} axes, got shape {tuple(feature.shape)}."
            )
        if self.axes == "NHWC":
            return feature.permute(0, 3, 1, 2)
        if self.axes == "NTD":
            return feature.transpose(1, 2)
        if self.axes == "NLD":
            patches = feature[:, self.prefix_tokens :]
            height, width = self._token_grid(patches.shape[1])
            return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], height, width)
        return feature

    def _token_grid(self, tokens: int) -> tuple[int, int]:
        if self.grid is not None and math.prod(self.grid) == tokens:
            return self.grid
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise LayoutError(
                f"{tokens} patch tokens (after {self.prefix_tokens} prefix tokens) do not fill the grid "
                f"{self.grid or 'of a square image'}: declare it on the tap, Tap(..., prefix_tokens=..., grid=(h, w))."
            )
        return side, side


@dataclass(frozen=True, slots=True)
class LayoutHints:
    """What the model itself says about its features.

    Attributes:
        prefix_tokens: Tokens before the patches inside the blocks (timm's ``num_prefix_tokens``).
        channels_last: Whether four-dimensional features end with the channels (timm's ``output_fmt == "NHWC"``).
        image_size: Height and width of the input image in pixels; ``None`` if the input is not an image.
    """

    prefix_tokens: int = 0
    channels_last: bool = False
    image_size: tuple[int, int] | None = None


def detect_layout(shape: tuple[int, ...], hints: LayoutHints) -> Layout:
    """Tell the layout of a feature from its shape, the input image's size and what the model declares.

    Four axes are a map: channels-last if the model says so or if only that reading keeps the image's aspect ratio.
    Three axes are patch tokens if the input is an image, else frames. Two axes are a pooled feature.
    Prefix tokens are never guessed from the number of tokens: the model declares them, or the user does.

    Args:
        shape: Shape of the feature, batch first.
        hints: What the model and its input say.

    Returns:
        The layout.

    Raises:
        LayoutError: If the shape fits no layout; the message says what to declare.

    Example:
        >>> detect_layout((2, 7, 7, 512), LayoutHints(image_size=(224, 224))).axes
        'NHWC'
    """
    if len(shape) == 2:
        return Layout("ND")
    if len(shape) == 4:
        return Layout("NHWC" if _is_channels_last(shape, hints) else "NCHW")
    if len(shape) == 3:
        return Layout("NTD") if hints.image_size is None else _token_layout(shape[1], hints.image_size, hints)
    raise LayoutError(f"a tapped feature must have 2, 3 or 4 axes, got shape {shape}: tap another module.")


def _is_channels_last(shape: tuple[int, ...], hints: LayoutHints) -> bool:
    if hints.channels_last:
        return True
    if hints.image_size is None:
        return False
    return _keeps_aspect(shape[1:3], hints.image_size) and not _keeps_aspect(shape[2:4], hints.image_size)


def _keeps_aspect(grid: tuple[int, ...], image_size: tuple[int, int]) -> bool:
    stride = max(1.0, image_size[0] / grid[0])
    return abs(image_size[1] / stride - grid[1]) < 1.0 + 1e-6


def _token_layout(tokens: int, image_size: tuple[int, int], hints: LayoutHints) -> Layout:
    for prefix in dict.fromkeys((hints.prefix_tokens, 0)):
        grid = _grid_of(tokens - prefix, image_size)
        if grid is not None:
            return Layout("NLD", prefix_tokens=prefix, grid=grid)
    fitting = [prefix for prefix in range(1, 10) if _grid_of(tokens - prefix, image_size)]
    advice = f"prefix_tokens={fitting[0]} would fit" if fitting else "no grid of the image's aspect ratio fits"
    raise LayoutError(
        f"{tokens} tokens do not fill a grid over an image of {image_size[0]}x{image_size[1]} pixels and the model "
        f"does not say how many are class or register tokens ({advice}): declare them, Tap(path, prefix_tokens=...)."
    )


def _grid_of(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    if tokens < 1:
        return None
    height = round(math.sqrt(tokens * image_size[0] / image_size[1]))
    for candidate in (height, height - 1, height + 1):
        if candidate > 0 and tokens % candidate == 0:
            grid = (candidate, tokens // candidate)
            if _keeps_aspect(grid, image_size):
                return grid
    return None


def common_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Bring two channels-first features to one grid: the smaller size along each axis, by average pooling.

    A pooled feature has no grid; the other side is then averaged over its whole grid.

    Args:
        student: Shape ``(N, C_s, *grid_s)`` with zero, one or two grid axes.
        teacher: Shape ``(N, C_t, *grid_t)``.

    Returns:
        Both features on the common grid.

    Raises:
        LayoutError: If one side is a map and the other a sequence of frames.

    Example:
        >>> import torch
        >>> s, t = common_grid(torch.zeros(2, 64, 8, 8), torch.zeros(2, 192, 14, 14))
        >>> s.shape, t.shape
        (torch.Size([2, 64, 8, 8]), torch.Size([2, 192, 8, 8]))
    """
    if student.ndim == 2 or teacher.ndim == 2:
        return pooled(student), pooled(teacher)
    if student.ndim != teacher.ndim:
        raise LayoutError(
            f"a map and a sequence of frames have no common grid: student {tuple(student.shape)}, "
            f"teacher {tuple(teacher.shape)}; tap pooled features instead."
        )
    grid = tuple(min(sizes) for sizes in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return _pool_to(student, grid), _pool_to(teacher, grid)


def pooled(feature: Tensor) -> Tensor:
    """Average a channels-first feature over its whole grid: ``(N, C, *grid)`` to ``(N, C)``."""
    return feature.flatten(2).mean(2) if feature.ndim > 2 else feature


def _pool_to(feature: Tensor, grid: tuple[int, ...]) -> Tensor:
    if feature.shape[2:] == grid:
        return feature
    if len(grid) == 1:
        return F.adaptive_avg_pool1d(feature, grid)
    return F.adaptive_avg_pool2d(feature, (grid[0], grid[1]))

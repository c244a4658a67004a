"""What happens to an image before the network: the arithmetic goes into the graph, resizing stays with the caller."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

ImageDtype = Literal["uint8", "float32"]
ImageLayout = Literal["NHWC", "NCHW"]
ColorOrder = Literal["RGB", "BGR"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """How an image of the caller becomes an input of the network.

    In the graph: the layout, the order of colours, and ``(scale * value - mean) / std`` for every channel. Left to the
    caller: decoding, resizing and cropping, which `caller_steps` spells out; every library of images does them well,
    and no two runtimes alike.

    Args:
        mean: Mean of each channel, in units of the scaled value.
        std: Standard deviation of each channel, in the same units, above 0.
        scale: Factor on the caller's values, such as 1/255.
        dtype: Type of the caller's image.
        layout: Order of its dimensions.
        color_order: Order of its channels.
        network_color_order: Order that the network was trained with.
        resize: What to resize to before the crop: the shorter side, or height and width; ``None`` for nothing.
        interpolation: Interpolation of the resizing, such as ``"bicubic"``.
        crop: Height and width of the crop at the centre; ``None`` for none.

    Raises:
        ValueError: If a value is outside its range, or the numbers of channels do not agree.

    Example:
        >>> preprocessing = ImagePreprocessing(resize=256, interpolation="bilinear", crop=(224, 224))
        >>> preprocessing.value_range
        (0.0, 255.0)
        >>> preprocessing.caller_steps[1]
        'resize the shorter side to 256 with bilinear interpolation'
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    dtype: ImageDtype = "uint8"
    layout: ImageLayout = "NHWC"
    color_order: ColorOrder = "RGB"
    network_color_order: ColorOrder = "RGB"
    resize: int | tuple[int, int] | None = None
    interpolation: str | None = None
    crop: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(f"`mean` and `std` must have one value for each channel, got {self.mean} and {self.std}.")
        if not all(0 < value < math.inf for value in (*self.std, self.scale)):
            raise ValueError(f"`std` and `scale` must be finite and above 0, got {self.std} and {self.scale}.")
        for name, choices in (("dtype", ImageDtype), ("layout", ImageLayout)):
            _check_choice(name, getattr(self, name), get_args(choices))
        for name in ("color_order", "network_color_order"):
            _check_choice(name, getattr(self, name), get_args(ColorOrder))
        if self.swaps_colors and len(self.mean) != 3:
            raise ValueError(f"`color_order` must be that of the network for {len(self.mean)} channels, got another.")

    @property
    def swaps_colors(self) -> bool:
        """Whether red and blue change places."""
        return self.color_order != self.network_color_order

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value of the caller's image."""
        return (0.0, round(1 / self.scale, 6))

    @property
    def caller_steps(self) -> tuple[str, ...]:
        """What the caller still has to do, in order."""
        steps = ["decode the image"]
        if self.resize is not None:
            sides = f"the shorter side to {self.resize}" if isinstance(self.resize, int) else f"to {_size(self.resize)}"
            steps.append(
                f"resize {sides}" + (f" with {self.interpolation} interpolation" if self.interpolation else "")
            )
        if self.crop is not None:
            steps.append(f"crop {_size(self.crop)} at the centre")
        low, high = self.value_range
        colors = self.color_order if len(self.mean) == 3 else "of the network"
        steps.append(f"pass {self.layout} of {self.dtype} from {low:g} to {high:g}, channels in the order {colors}")
        return tuple(steps)

    def to_content(self) -> dict[str, Any]:
        """The JSON object, with the caller's steps in words."""
        return {"kind": "image", **asdict(self), "caller_steps": list(self.caller_steps)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object that `to_content` returns."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in content.items()
            if name not in ("kind", "caller_steps")
        }
        return cls(**fields)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} (height x width)"

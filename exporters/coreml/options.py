"""What a user may say about a Core ML package."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from exporters.errors import ConversionError

DeploymentTarget = Literal["iOS16", "iOS17", "iOS18", "iOS26"]
"""Oldest system that loads a package. macOS 13, 14, 15 and 26 come with the same versions of Core ML."""

ComputeUnits = Literal["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]
"""Where Core ML may run a package: everywhere, or on the CPU with or without the Neural Engine or the GPU."""

ColorLayout = Literal["RGB", "BGR", "GRAYSCALE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    r"""An input that Core ML fills from an image; the normalisation is part of the program.

    The program computes :math:`(s\,p - \mu_c) / \sigma_c` from pixels :math:`p` between 0 and 255, for every channel
    :math:`c`, and hands that to the network.

    Args:
        name: Name of the network's input, of shape (1, channels, height, width).
        layout: Order of the channels that the network was trained on.
        scale: Factor :math:`s`; 1/255 brings pixels to the range 0 to 1.
        mean: :math:`\mu`, per channel of ``layout``, after scaling.
        std: :math:`\sigma`, likewise.

    Raises:
        ValueError: If the numbers of channels differ, or a number is out of range.

    Example:
        >>> ImageInput(name="image", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).layout
        'RGB'
        >>> ImageInput(name="image", layout="GRAYSCALE", mean=(0.5, 0.5, 0.5))
        Traceback (most recent call last):
        ValueError: `mean` must have 1 entries for GRAYSCALE, got (0.5, 0.5, 0.5).
    """

    name: str
    layout: ColorLayout = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_choice("layout", self.layout, get_args(ColorLayout))
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` must be a finite number above 0, got {self.scale!r}.")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != self.channels:
                raise ValueError(f"`{name}` must have {self.channels} entries for {self.layout}, got {values}.")
        if not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"`std` must be finite numbers above 0, got {self.std}.")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.layout == "GRAYSCALE" else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearWeights:
    """Weights as whole numbers with a scale, symmetric around zero.

    Args:
        bits: Bits of a weight, 8 or 4; 4 needs iOS 18.
        block_size: Weights along the input channels that share a scale; ``None`` for one scale per output channel.
            Needs iOS 18.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> LinearWeights(bits=4, block_size=32).recipe
        'linear 4 bit, blocks of 32'
    """

    bits: Literal[4, 8] = 8
    block_size: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_choice("bits", self.bits, (4, 8))
        _check_size("block_size", self.block_size)

    @property
    def recipe(self) -> str:
        """Name in the report."""
        blocks = "per channel" if self.block_size is None else f"blocks of {self.block_size}"
        return f"linear {self.bits} bit, {blocks}"

    def check_target(self, target: DeploymentTarget) -> None:
        """Raise `ConversionError` if ``target`` is too old."""
        if self.bits == 4 or self.block_size is not None:
            check_new_enough(target, f"weights of kind {self.recipe!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Weights as indices into a table of values that k-means finds.

    Args:
        bits: Bits of an index: 1, 2, 4, 6 or 8 for a table of 2 to 256 values; 3 needs iOS 18.
        group_size: Output channels that share a table; ``None`` for one table per weight. Needs iOS 18.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> Palette(bits=4, group_size=16).recipe
        'palette 4 bit, groups of 16'
        >>> Palette(bits=5)
        Traceback (most recent call last):
        ValueError: `bits` must be one of 1, 2, 3, 4, 6, 8, got 5.
    """

    bits: Literal[1, 2, 3, 4, 6, 8] = 4
    group_size: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_choice("bits", self.bits, (1, 2, 3, 4, 6, 8))
        _check_size("group_size", self.group_size)

    @property
    def recipe(self) -> str:
        """Name in the report."""
        groups = "one table" if self.group_size is None else f"groups of {self.group_size}"
        return f"palette {self.bits} bit, {groups}"

    def check_target(self, target: DeploymentTarget) -> None:
        """Raise `ConversionError` if ``target`` is too old."""
        if self.bits == 3 or self.group_size is not None:
            check_new_enough(target, f"weights of kind {self.recipe!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """Weights of which the smallest are left out; zeros that training made are stored as such.

    Args:
        target: Share of weights to set to zero, at least 0 and below 1; ``None`` stores only the zeros there are.

    Raises:
        ValueError: If ``target`` is out of range.

    Example:
        >>> Sparsity(target=0.5).recipe
        '50 % pruned'
    """

    target: float | None = None

    def __post_init__(self) -> None:
        """Check the share."""
        if self.target is not None and not 0 <= self.target < 1:
            raise ValueError(f"`target` must be None or at least 0 and below 1, got {self.target!r}.")

    @property
    def recipe(self) -> str:
        """Name in the report."""
        return "zeros left out" if self.target is None else f"{self.target:.0%} pruned".replace("%", " %")


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_new_enough(target: DeploymentTarget, what: str) -> None:
    """Raise `ConversionError` unless ``target`` is iOS 18 or newer, for what it brought."""
    if target in ("iOS16", "iOS17"):
        raise ConversionError(
            f"`minimum_deployment_target` must be 'iOS18' or newer for {what}, got {target!r}; raise it, or choose "
            f"8 bits per channel or one table per weight."
        )


def _check_size(name: str, value: int | None) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"`{name}` must be None or a whole number above 0, got {value!r}.")

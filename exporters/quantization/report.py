"""What a quantisation did: recipes tried, the data it saw, what stayed in floating point."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """Which inputs set the ranges of a quantised network.

    Args:
        count: Number of samples.
        seed: Seed by which they were chosen; what of them was held out to compare recipes follows from it, too.
        sha256: Hash of their names, shapes, types and values, in hexadecimal.
    """

    count: int
    seed: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One recipe and how close it came to the network in floating point, on samples held out of calibration.

    Args:
        recipe: Name of the recipe.
        cosine: Smallest cosine over the outputs; ``None`` if the recipe failed.
        sqnr_db: Smallest signal to quantisation noise ratio over the outputs, dB; ``None`` if the recipe failed, or if
            an output is exact.
        metric: The task's metric; ``None`` without an evaluation.
        failure: Why the recipe could not be used; ``None`` if it could.
    """

    recipe: str
    cosine: float | None = None
    sqnr_db: float | None = None
    metric: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationReport:
    """How a network was quantised.

    Args:
        recipe: Name of the recipe that was used.
        trials: Every recipe tried, in order.
        calibration: The inputs that set the ranges; ``None`` if the network came with its ranges (after
            quantisation-aware training), or only weights were quantised.
        left_in_float: Layers that compute in floating point, by module path where it is known.
    """

    recipe: str
    trials: tuple[Trial, ...] = ()
    calibration: CalibrationRecord | None = None
    left_in_float: tuple[str, ...] = ()

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of a report."""
        calibration = content["calibration"]
        return cls(
            recipe=content["recipe"],
            trials=tuple(Trial(**trial) for trial in content["trials"]),
            calibration=calibration and CalibrationRecord(**calibration),
            left_in_float=tuple(content["left_in_float"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What the network's outputs lose when one layer alone is quantised.

    Args:
        layer: Path of the module, or name of the graph's node where the network itself computes.
        operator: What it computes, such as ``"conv2d"``, ``"linear"`` or ``"scaled_dot_product_attention"``.
        cosine: Smallest cosine over the outputs, dimensionless.
        sqnr_db: Smallest signal to quantisation noise ratio over the outputs, dB; infinite where nothing changes.
    """

    layer: str
    operator: str
    cosine: float
    sqnr_db: float

"""Weights that change while training: any function of the progress, and the shapes that papers use."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_kd._checks import check_choice, check_positive

Unit = Literal["step", "epoch"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is.

    Attributes:
        step: Optimizer steps taken so far, from 0.
        epoch: Epochs finished so far, from 0.
        total_steps: Optimizer steps that training will take; ``None`` if that is not known.
    """

    step: int = 0
    epoch: int = 0
    total_steps: int | None = None

    def at(self, unit: Unit) -> int:
        """Return the count in ``unit``."""
        return self.step if unit == "step" else self.epoch


START = Progress()
Weight = float | Callable[[Progress], float]


def weight_at(weight: Weight, progress: Progress) -> float:
    """Value of a weight, whether a number or a schedule, at ``progress``.

    Args:
        weight: A number, or a function of the progress.
        progress: How far training is.

    Returns:
        The value, dimensionless.

    Raises:
        ValueError: If a schedule gives a negative or non-finite value.

    Example:
        >>> weight_at(Ramp(0.0, 1.0, over=4, unit="epoch"), Progress(epoch=1))
        0.25
    """
    return check_weight("weight", weight(progress) if callable(weight) else weight)


def check_weight(name: str, value: object) -> float:
    """Return ``value`` as a float; raise `ValueError` unless it is finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"`{name}` must be a finite number of at least 0, or a schedule, got {value!r}.")
    return float(value)


@dataclass(frozen=True, slots=True)
class Ramp:
    """A weight that goes from one value to another, then stays.

    Attributes:
        start: Value until ``begin``.
        end: Value from ``begin + over`` on.
        over: Length of the ramp in ``unit``.
        unit: ``"epoch"`` or ``"step"``.
        begin: Where the ramp begins, in ``unit``.
        shape: ``"linear"``, or ``"cosine"`` for half a cosine.

    Raises:
        ValueError: If a value is negative, ``over`` is not above 0, or a choice is unknown.

    Example:
        >>> warm_up = Ramp(0.0, 1.0, over=20)
        >>> warm_up(Progress(epoch=5)), warm_up(Progress(epoch=50))
        (0.25, 1.0)
    """

    start: float
    end: float
    over: float
    unit: Unit = "epoch"
    begin: float = 0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        """Check the values."""
        check_weight("start", self.start)
        check_weight("end", self.end)
        check_weight("begin", self.begin)
        check_positive("over", self.over)
        check_choice("unit", self.unit, ("step", "epoch"))
        check_choice("shape", self.shape, ("linear", "cosine"))

    def __call__(self, progress: Progress) -> float:
        """Return the weight at ``progress``."""
        done = min(max((progress.at(self.unit) - self.begin) / self.over, 0.0), 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True, slots=True)
class Steps:
    """A weight that jumps at given moments.

    Attributes:
        values: Weight from each moment on, by moment in ``unit``; must contain 0.
        unit: ``"epoch"`` or ``"step"``.

    Raises:
        ValueError: If no value is given for 0, a value is negative, or ``unit`` is unknown.

    Example:
        >>> Steps({0: 1.0, 150: 0.1})(Progress(epoch=149))
        1.0
    """

    values: Mapping[int, float]
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("unit", self.unit, ("step", "epoch"))
        if 0 not in self.values or min(self.values) < 0:
            raise ValueError(f"`values` must give the weight from 0 on, got moments {sorted(self.values)}.")
        for moment, value in self.values.items():
            check_weight(f"values[{moment}]", value)

    def __call__(self, progress: Progress) -> float:
        """Return the weight at ``progress``."""
        moments = sorted(self.values)
        return self.values[moments[bisect_right(moments, progress.at(self.unit)) - 1]]


@dataclass(frozen=True, slots=True)
class Window:
    """A weight inside a window of time, and 0 outside, where the objective is not computed: a stage of training.

    Attributes:
        value: The weight inside: a number, or a schedule.
        begin: First moment inside, in ``unit``.
        end: First moment after it; ``None`` for the end of training.
        unit: ``"epoch"`` or ``"step"``.

    Raises:
        ValueError: If a value is negative, the window is empty, or ``unit`` is unknown.

    Example:
        >>> second_stage = Window(0.5, begin=10)
        >>> second_stage(Progress(epoch=9)), second_stage(Progress(epoch=10))
        (0.0, 0.5)
    """

    value: Weight
    begin: int = 0
    end: int | None = None
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        """Check the values."""
        if not callable(self.value):
            check_weight("value", self.value)
        check_weight("begin", self.begin)
        check_choice("unit", self.unit, ("step", "epoch"))
        if self.end is not None and self.end <= self.begin:
            raise ValueError(f"`end` must be after begin={self.begin}, got {self.end!r}.")

    def __call__(self, progress: Progress) -> float:
        """Return the weight at ``progress``."""
        inside = progress.at(self.unit) >= self.begin and (self.end is None or progress.at(self.unit) < self.end)
        return weight_at(self.value, progress) if inside else 0.0


def warm_up(progress: Progress) -> float:
    """Weight that grows to 1 over 20 epochs, as those of DKD and ReviewKD do on CIFAR-100.

    It is ``min(epoch / 20, 1)`` with epochs counted from 1.

    Args:
        progress: How far training is.

    Returns:
        The weight, dimensionless.

    Example:
        >>> warm_up(Progress(epoch=0)), warm_up(Progress(epoch=19))
        (0.05, 1.0)
    """
    return min((progress.epoch + 1) / 20, 1.0)

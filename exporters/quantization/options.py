"""What a user may say about a quantisation."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationOptions:
    """How to quantise; every default leaves the choice to what is measured.

    Args:
        recipe: Name of one recipe of the exporter, or ``"auto"`` to try those that suit the graph and take the best.
        samples: Largest number of calibration samples.
        seed: Seed by which samples are chosen.
        keep_float: Layers to leave in floating point: module paths, a path standing for all that is in it.
        max_drop: Largest loss of the task's metric, in its unit, that layers are put back into floating point for;
            ``None`` for no such control. Needs an evaluation.
        time_limit_s: Time after which no further recipe or layer is tried, s.

    Raises:
        ValueError: If a number is outside its range.

    Example:
        >>> QuantizationOptions(keep_float=("head",), samples=100).recipe
        'auto'
        >>> QuantizationOptions(samples=0)
        Traceback (most recent call last):
        ValueError: `samples` must be a whole number above 0, got 0.
    """

    recipe: str = "auto"
    samples: int = 300
    seed: int = 0
    keep_float: tuple[str, ...] = ()
    max_drop: float | None = None
    time_limit_s: float = 600.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if type(self.samples) is not int or self.samples < 1:
            raise ValueError(f"`samples` must be a whole number above 0, got {self.samples!r}.")
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise ValueError(f"`max_drop` must be None or a finite number of at least 0, got {self.max_drop!r}.")
        if not self.time_limit_s > 0:
            raise ValueError(f"`time_limit_s` must be above 0, got {self.time_limit_s!r}.")

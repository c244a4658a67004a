"""How long to warm up and to measure."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """Stop rules of warm-up and measurement; durations count the time spent inside the runs.

    Warm-up ends when two consecutive windows have medians that agree within ``warm_up_tolerance`` and
    ``min_warm_up_seconds`` have passed; a network that is not steady after ``max_warm_up_seconds`` is measured all
    the same and marked unsteady. Measurement ends when both ``min_runs`` and ``min_seconds`` are reached; one that
    ``max_seconds`` cuts short is marked incomplete.

    Args:
        min_runs: Fewest measured runs, at least 1. Intervals need 6 runs for p50, 36 for p90 and 368 for p99.
        min_seconds: Least time to measure, s, at least 0.
        max_seconds: Most time to measure, s, above 0 and at least ``min_seconds``.
        warm_up_window: Runs in one window of the warm-up, at least 1.
        warm_up_tolerance: Relative difference between two medians that counts as agreement, at least 0.
        min_warm_up_seconds: Least time to warm up, s, at least 0.
        max_warm_up_seconds: Most time to warm up, s, above 0 and at least ``min_warm_up_seconds``.

    Raises:
        TypeError: If a count is not an integer or a duration not a number.
        ValueError: If a value is outside its range.

    Example:
        >>> from exporters.profiling import ProfileOptions
        >>> ProfileOptions(min_runs=0)
        Traceback (most recent call last):
        ValueError: `min_runs` must be at least 1, got 0.
    """

    min_runs: int = 200
    min_seconds: float = 3.0
    max_seconds: float = 60.0
    warm_up_window: int = 20
    warm_up_tolerance: float = 0.02
    min_warm_up_seconds: float = 0.5
    max_warm_up_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check every value."""
        check_count("min_runs", self.min_runs, minimum=1)
        check_count("warm_up_window", self.warm_up_window, minimum=1)
        _check_number("min_seconds", self.min_seconds)
        _check_number("warm_up_tolerance", self.warm_up_tolerance)
        _check_number("min_warm_up_seconds", self.min_warm_up_seconds)
        _check_limit("max_seconds", self.max_seconds, "min_seconds", self.min_seconds)
        _check_limit("max_warm_up_seconds", self.max_warm_up_seconds, "min_warm_up_seconds", self.min_warm_up_seconds)

    def split(self, parts: int) -> "ProfileOptions":
        """Options of one of ``parts`` measurements that together last as long; each warms up like the whole.

        Example:
            >>> from exporters.profiling import ProfileOptions
            >>> ProfileOptions(min_runs=12, min_seconds=3.0).split(5).min_runs
            3
        """
        return replace(
            self,
            min_runs=math.ceil(self.min_runs / parts),
            min_seconds=self.min_seconds / parts,
            max_seconds=self.max_seconds / parts,
        )


def check_count(name: str, value: int, *, minimum: int) -> None:
    """Raise unless ``value`` is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an integer, got {value!r} of type {type(value).__name__}.")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}, got {value}.")


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"`{name}` must be a number, got {value!r} of type {type(value).__name__}.")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def _check_limit(name: str, value: float, minimum_name: str, minimum: float) -> None:
    _check_number(name, value)
    if value <= 0 or value < minimum:
        raise ValueError(
            f"`{name}` must be above 0 and at least `{minimum_name}` ({minimum}), got {value!r}; "
            f"raise `{name}` or lower `{minimum_name}`."
        )

"""The loops that time runs: warm-up until steady, measurement, interleaving.

Each takes timed runs: functions that do one run and return its latency in nanoseconds. `stopwatch` makes one from
any callable and the host's clock; another clock (events on an accelerator, a device that times itself) is another
such function.
"""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from .options import ProfileOptions
from .units import NANOSECONDS_PER_MILLISECOND, NANOSECONDS_PER_SECOND

BLOCK_RUNS = 10

TimedRun = Callable[[], int]
Result = TypeVar("Result")


class WarmUp(NamedTuple):
    """What happened before the measurement.

    Args:
        latencies_ns: Latency of every run, ns, in order.
        steady: Whether two consecutive windows agreed before the time was over.
    """

    latencies_ns: tuple[int, ...]
    steady: bool


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and how long it took once, ms."""
    start_ns = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - start_ns) / NANOSECONDS_PER_MILLISECOND


def stopwatch(run: Callable[[], object], *, clock: Callable[[], int] = time.perf_counter_ns) -> TimedRun:
    """Timed run of ``run`` on a monotonic clock of the host.

    The outputs live until the clock has been read, so that freeing them is not timed.

    Args:
        run: Does one run and returns its outputs, which must be ready by then.
        clock: Current time in ns.

    Returns:
        Function that does one run and returns its latency in ns.

    Raises:
        ValueError: By the returned function, if ``clock`` did not advance during a run.

    Example:
        >>> from exporters.profiling.runner.measure import stopwatch
        >>> ticks = iter([100, 350])
        >>> stopwatch(lambda: None, clock=lambda: next(ticks))()
        250
    """

    def timed_run() -> int:
        start = clock()
        outputs = run()
        elapsed = clock() - start
        del outputs
        if elapsed <= 0:
            raise ValueError(f"`clock` must advance during a run, got {elapsed} ns; use a finer clock.")
        return elapsed

    return timed_run


def with_parts(
    timed_run: TimedRun, parts: Callable[[], Mapping[str, int]] | None
) -> tuple[TimedRun, dict[str, list[int]]]:
    """The same timed run, after each of which the times of its parts are kept, outside the clock.

    Args:
        timed_run: Does one run and returns its latency in ns.
        parts: Times of the parts of the last run, ns, by name; ``None`` where there are none.

    Returns:
        The timed run, and the times of all runs so far, by name.

    Example:
        >>> from exporters.profiling.runner.measure import with_parts
        >>> timed_run, parts_ns = with_parts(lambda: 500, lambda: {"enqueue": 20})
        >>> timed_run(), timed_run(), parts_ns
        (500, 500, {'enqueue': [20, 20]})
    """
    parts_ns: dict[str, list[int]] = {}
    if parts is None:
        return timed_run, parts_ns

    def timed_run_with_parts() -> int:
        latency = timed_run()
        for name, part in parts().items():
            parts_ns.setdefault(name, []).append(part)
        return latency

    return timed_run_with_parts, parts_ns


def warm_up(timed_run: TimedRun, options: ProfileOptions) -> WarmUp:
    """Run until the medians of two consecutive windows agree, or the time for it is over.

    Args:
        timed_run: Does one run and returns its latency in ns.
        options: Window, tolerance and time limits.

    Returns:
        Every latency, and whether the last two windows agreed.
    """
    latencies: list[int] = []
    elapsed, window = 0, options.warm_up_window
    while elapsed < options.max_warm_up_seconds * NANOSECONDS_PER_SECOND:
        latencies.append(timed_run())
        elapsed += latencies[-1]
        window_is_full = len(latencies) % window == 0 and len(latencies) >= 2 * window
        if window_is_full and elapsed >= options.min_warm_up_seconds * NANOSECONDS_PER_SECOND:
            before, now = median(latencies[-2 * window : -window]), median(latencies[-window:])
            if abs(now - before) <= options.warm_up_tolerance * before:
                return WarmUp(tuple(latencies), steady=True)
    return WarmUp(tuple(latencies), steady=False)


def measure(timed_run: TimedRun, options: ProfileOptions) -> tuple[int, ...]:
    """Run until both the least count and the least time are reached, or the most time is over.

    Python's garbage collector is off meanwhile. Every run is kept: nothing is clipped.

    Args:
        timed_run: Does one run and returns its latency in ns.
        options: Least count, least time and most time.

    Returns:
        Latency of every run, ns, in order.
    """
    latencies: list[int] = []
    elapsed = 0
    with garbage_collector_off():
        while unfinished(len(latencies), elapsed, options):
            latencies.append(timed_run())
            elapsed += latencies[-1]
    return tuple(latencies)


def interleave(
    timed_runs: Sequence[TimedRun], options: ProfileOptions, *, generator: np.random.Generator
) -> np.ndarray:
    """Measure several candidates in rounds: in each, one block of 10 runs per candidate, in random order.

    A disturbance of the machine that outlasts a round hits all candidates alike. Rounds are whole and at least two;
    they end when every candidate has the least count and the rounds together took the least time per candidate, or
    the most time per candidate is over.

    Args:
        timed_runs: One timed run per candidate.
        options: Least count, least time and most time, per candidate.
        generator: Draws the order.

    Returns:
        Latencies in ns, int64, shape ``(candidates, rounds, 10)``.
    """
    rounds: list[np.ndarray] = []
    elapsed = 0
    with garbage_collector_off():
        while len(rounds) < 2 or unfinished(len(rounds) * BLOCK_RUNS, elapsed // len(timed_runs), options):
            blocks = np.empty((len(timed_runs), BLOCK_RUNS), dtype=np.int64)
            for candidate in generator.permutation(len(timed_runs)):
                timed_run = timed_runs[candidate]
                blocks[candidate] = [timed_run() for _ in range(BLOCK_RUNS)]
            rounds.append(blocks)
            elapsed += int(blocks.sum())
    return np.stack(rounds, axis=1)


def unfinished(runs: int, elapsed_ns: int, options: ProfileOptions) -> bool:
    """Whether the least count or the least time is still to be reached, and the most time is not over."""
    reached = runs >= options.min_runs and elapsed_ns >= options.min_seconds * NANOSECONDS_PER_SECOND
    return not reached and elapsed_ns < options.max_seconds * NANOSECONDS_PER_SECOND


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Collect garbage once, and then not before the end."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

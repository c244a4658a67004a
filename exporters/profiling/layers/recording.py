"""What every runtime's own profiler gives, and the runs around it."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from exporters.artifact import Artifact
from exporters.profiling.layers.result import LayerTime
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND

MICROSECONDS_PER_MILLISECOND = 1e3


class Request(NamedTuple):
    """What to record.

    Args:
        artifact: The exported network.
        threads: Threads that one run may use.
        inputs: Arrays to run on, by input name.
        warm_up_runs: Runs that do not count, before the others.
        runs: Runs that count.
    """

    artifact: Artifact
    threads: int
    inputs: Mapping[str, np.ndarray]
    warm_up_runs: int
    runs: int


class Recording(NamedTuple):
    """What a runtime's profiler said.

    Args:
        layers: Mean time of every operation over the runs that count.
        run_ms: Mean time of a whole run, ms.
        properties: Settings in effect, read back from the runtime.
    """

    layers: list[LayerTime]
    run_ms: float
    properties: Mapping[str, str | int | float]


def mean_run_ms(run: Callable[[], object], runs: int) -> float:
    """Do ``runs`` runs and return their mean time, ms.

    Example:
        >>> mean_run_ms(lambda: None, 3) >= 0
        True
    """
    start = time.perf_counter_ns()
    for _ in range(runs):
        run()
    return (time.perf_counter_ns() - start) / runs / NANOSECONDS_PER_MILLISECOND


def module_in(name: str) -> str | None:
    """Module path in a name that an exporter carried into the file; ``None`` in a name that a runtime made up.

    Example:
        >>> module_in("blocks.0.mlp.fc1/linear_2"), module_in("/mean"), module_in("Transpose_4076")
        ('blocks.0.mlp.fc1', '', None)
    """
    path, slash, _ = name.partition("/")
    return path if slash else None

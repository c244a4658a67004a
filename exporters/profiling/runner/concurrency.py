"""Several requests at once."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .measure import TimedRun
from .options import ProfileOptions
from .units import NANOSECONDS_PER_SECOND


class ConcurrentRuns(NamedTuple):
    """What several requests at once took.

    Args:
        elapsed_ns: From the start of the first request to the end of the last, ns.
        latencies_ns: Time of every request, ns.
    """

    elapsed_ns: int
    latencies_ns: tuple[int, ...]


def run_at_once(timed_runs: Sequence[TimedRun], options: ProfileOptions) -> ConcurrentRuns:
    """Keep every request in work until there are enough runs and enough time has passed, or the most time is over.

    Each request has a thread of its own, which starts its next run when the last one ended. All are warmed up by one
    run each before the clock starts.

    Args:
        timed_runs: One per request; each does one run and returns its latency in ns.
        options: Least count over all requests, least time and most time of the clock on the wall.

    Returns:
        The latencies of all requests.
    """
    started = 0
    done = [0] * len(timed_runs)

    def start() -> None:
        nonlocal started
        started = time.perf_counter_ns()

    barrier = threading.Barrier(len(timed_runs), action=start)

    def work(index: int) -> list[int]:
        timed_run = timed_runs[index]
        timed_run()
        barrier.wait()
        latencies: list[int] = []
        while not latencies or _unfinished(sum(done), time.perf_counter_ns() - started, options):
            latencies.append(timed_run())
            done[index] += 1
        return latencies

    with ThreadPoolExecutor(max_workers=len(timed_runs)) as pool:
        working = [pool.submit(work, index) for index in range(len(timed_runs))]
        latencies = [latency for each in working for latency in each.result()]
        ended = time.perf_counter_ns()
    return ConcurrentRuns(elapsed_ns=ended - started, latencies_ns=tuple(latencies))


def _unfinished(runs: int, elapsed_ns: int, options: ProfileOptions) -> bool:
    enough = runs >= options.min_runs and elapsed_ns >= options.min_seconds * NANOSECONDS_PER_SECOND
    return not enough and elapsed_ns < options.max_seconds * NANOSECONDS_PER_SECOND

"""Several requests at once."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .measure import TimedRun, garbage_collector_off, unfinished
from .options import ProfileOptions


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
    for timed_run in timed_runs:
        timed_run()
    barrier = threading.Barrier(len(timed_runs))
    done = [0] * len(timed_runs)

    def work(index: int) -> tuple[int, int, list[int]]:
        latencies: list[int] = []
        barrier.wait()
        started = time.perf_counter_ns()
        while not latencies or unfinished(sum(done), time.perf_counter_ns() - started, options):
            latencies.append(timed_runs[index]())
            done[index] += 1
        return started, time.perf_counter_ns(), latencies

    with garbage_collector_off(), ThreadPoolExecutor(max_workers=len(timed_runs)) as pool:
        started, ended, latencies = zip(*pool.map(work, range(len(timed_runs))), strict=True)
    return ConcurrentRuns(
        elapsed_ns=max(ended) - min(started),
        latencies_ns=tuple(latency for of_one in latencies for latency in of_one),
    )

"""Warm-up and measurement of one network, watched."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .disturbance import ProcessorTime, read_processor_time, time_between
from .energy import Energy, energy_between, read_energy
from .measure import TimedRun, WarmUp, measure, warm_up, with_parts
from .options import ProfileOptions


class SteadyState(NamedTuple):
    """What a network does once it is warm.

    Args:
        warm_up: What happened before.
        latencies_ns: Latency of every measured run, ns.
        parts_ns: Times of their parts on other clocks, ns, by name.
        processor: Processor time meanwhile; ``None`` where that cannot be read.
        energy: Of the processor meanwhile; ``None`` where it cannot be read.
    """

    warm_up: WarmUp
    latencies_ns: tuple[int, ...]
    parts_ns: Mapping[str, tuple[int, ...]]
    processor: ProcessorTime | None
    energy: Energy | None


def measure_steady(
    timed_run: TimedRun,
    options: ProfileOptions,
    *,
    parts: Callable[[], Mapping[str, int]] | None,
    idle_watts: float | None,
) -> SteadyState:
    """Warm up until steady, then measure, and read before and after what else went on.

    Args:
        timed_run: Does one run and returns its latency in ns.
        options: How long.
        parts: Times of the parts of the last run, ns, by name; ``None`` where there are none.
        idle_watts: Power of the machine before the network was loaded, W; ``None`` where it cannot be read.
    """
    timed_run, parts_ns = with_parts(timed_run, parts)
    warm = warm_up(timed_run, options)
    parts_ns.clear()
    processor, energy = read_processor_time(), read_energy()
    latencies_ns = measure(timed_run, options)
    energy_after, processor_after = read_energy(), read_processor_time()
    return SteadyState(
        warm_up=warm,
        latencies_ns=latencies_ns,
        parts_ns={name: tuple(times_ns) for name, times_ns in parts_ns.items()},
        processor=time_between(processor, processor_after),
        energy=energy_between(energy, energy_after, idle_watts=idle_watts),
    )

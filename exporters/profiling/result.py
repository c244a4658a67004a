"""What a measurement found: raw latencies, what they were measured on, and the figures that follow from them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from exporters.profiling.concurrency import Concurrency
from exporters.profiling.intervals import Estimate, count_stalls, latency_quantile, required_samples
from exporters.profiling.runner.cold import ColdStart
from exporters.profiling.runner.disturbance import Disturbance
from exporters.profiling.runner.energy import Energy
from exporters.profiling.runner.machine import Machine
from exporters.profiling.runner.memory import Memory
from exporters.profiling.runner.options import ProfileOptions
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND, NANOSECONDS_PER_SECOND
from exporters.profiling.subject import Subject, dump_result, load_result

THIS_PROCESS = "this process"
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Latency of one network on one machine, a single stream of runs, one after the other.

    The raw latencies are kept and never clipped; every figure is computed from them. Intervals of at least 7 sittings
    (fresh processes, as devices measure) hold what loading the network anew changes; those of fewer speak of this
    instance alone, and the network loaded once more may be a few percent faster or slower.

    Args:
        subject: What was measured.
        machine: Where, read just before.
        options: How long.
        first_ms: First run after loading (for a session: the first here), ms.
        warm_up_ns: Latency of every later run of the warm-up, ns.
        steady: Whether the warm-up reached a steady state.
        latencies_ns: Latency of every measured run, ns.
        sittings: How many of them, in order, are of which fresh process; one number for a measurement in this process.
        memory: Resident memory of the process; ``None`` on systems other than Linux and macOS.
        cores: Cores that the process could run on, read back.
        cold: Starts of fresh processes, without the runtime's cache and, where it has one, with it; empty for a
            measurement in this process.
        concurrency: Throughput with several requests at once; empty where it was not asked for.
        disturbance: What other processes took meanwhile; ``None`` where that cannot be told.
        energy: Of the processor during the measurement; ``None`` where it cannot be read.
        device: Where it ran: ``"this process"``, ``"local"`` (a fresh process here) or a device's address.
        parts_ns: Parts of every measured run on other clocks, ns, by name: on a GPU ``"compute"``, between two events
            around it, and ``"enqueue"``, the time of the launching call.

    Raises:
        ValueError: If ``sittings`` do not add up to the number of runs.
    """

    subject: Subject
    machine: Machine
    options: ProfileOptions
    first_ms: float
    warm_up_ns: tuple[int, ...]
    steady: bool
    latencies_ns: tuple[int, ...]
    sittings: tuple[int, ...]
    memory: Memory | None
    cores: tuple[int, ...] = ()
    cold: tuple[ColdStart, ...] = ()
    concurrency: tuple[Concurrency, ...] = ()
    disturbance: Disturbance | None = None
    energy: Energy | None = None
    device: str = THIS_PROCESS
    parts_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that every run is of a sitting."""
        if sum(self.sittings) != len(self.latencies_ns):
            raise ValueError(
                f"`sittings` must add up to the {len(self.latencies_ns)} runs of `latencies_ns`, got {self.sittings}."
            )

    @property
    def runs(self) -> int:
        """Number of measured runs."""
        return len(self.latencies_ns)

    @property
    def complete(self) -> bool:
        """Whether both the least count and the least time were reached before the time was over."""
        enough_time = sum(self.latencies_ns) >= self.options.min_seconds * NANOSECONDS_PER_SECOND
        return enough_time and self.runs >= self.options.min_runs

    @property
    def p50_ms(self) -> Estimate | None:
        """Median latency, ms; ``None`` with fewer than 6 runs."""
        return self._quantile("p50_ms")

    @property
    def p90_ms(self) -> Estimate | None:
        """Latency that 90 % of the runs stay below, ms; ``None`` with fewer than 36 runs."""
        return self._quantile("p90_ms")

    @property
    def p95_ms(self) -> Estimate | None:
        """Latency that 95 % of the runs stay below, ms; ``None`` with fewer than 72 runs."""
        return self._quantile("p95_ms")

    @property
    def p99_ms(self) -> Estimate | None:
        """Latency that 99 % of the runs stay below, ms; ``None`` with fewer than 368 runs."""
        return self._quantile("p99_ms")

    @property
    def refusals(self) -> dict[str, str]:
        """Why a percentile is ``None``, by its name; empty if none is."""
        return {
            name: f"needs at least {required_samples(quantile)} runs for a 95 % interval, got {self.runs}; "
            f"raise `min_runs`."
            for name, quantile in QUANTILES.items()
            if self.runs < required_samples(quantile)
        }

    @property
    def mean_ms(self) -> float:
        """Mean latency, ms."""
        return float(np.mean(self.latencies_ns)) / NANOSECONDS_PER_MILLISECOND

    @property
    def min_ms(self) -> float:
        """Smallest latency, ms."""
        return min(self.latencies_ns) / NANOSECONDS_PER_MILLISECOND

    @property
    def samples_per_second(self) -> float:
        """Throughput of this one stream: samples of all runs per second spent in them."""
        return self.subject.batch_size * self.runs / sum(self.latencies_ns) * NANOSECONDS_PER_SECOND

    @property
    def stalls(self) -> int:
        """Number of runs more than three interquartile ranges above the third quartile."""
        return count_stalls(self.latencies_ns)

    @property
    def load_ms(self) -> float | None:
        """Time from the file to a session ready to run, ms; ``None`` for a session."""
        return self.subject.load_ms

    @property
    def threads(self) -> int | None:
        """Threads that one run may use, read back from the runtime; ``None`` if it does not say."""
        threads = self.subject.properties.get("threads")
        return None if threads is None else int(threads)

    @property
    def active_precision(self) -> str | None:
        """Type in which the network was computed, read back from the runtime; ``None`` if it does not say."""
        precision = self.subject.properties.get("active_precision")
        return None if precision is None else str(precision)

    @property
    def disturbed(self) -> bool | None:
        """Whether others took more than a tenth of a core while this was measured; ``None`` if that is not known."""
        return None if self.disturbance is None else self.disturbance.disturbed

    @property
    def joules_per_sample(self) -> float | None:
        """Energy of one sample beyond that of the idle machine, J; ``None`` where it could not be read."""
        return None if self.energy is None else self.energy.joules_above_idle / (self.runs * self.subject.batch_size)

    @property
    def parts_ms(self) -> dict[str, float]:
        """Median of every part on another clock, ms, by name."""
        medians_ns = {name: float(np.median(times_ns)) for name, times_ns in self.parts_ns.items()}
        return {name: median_ns / NANOSECONDS_PER_MILLISECOND for name, median_ns in medians_ns.items()}

    def summary(self) -> dict[str, Any]:
        """Every figure by its name, without the raw latencies; values are of JSON types."""
        percentiles = {name: self._quantile(name) for name in QUANTILES}
        return {
            "name": self.subject.name,
            **{name: None if estimate is None else asdict(estimate) for name, estimate in percentiles.items()},
            "refusals": self.refusals,
            "mean_ms": self.mean_ms,
            "min_ms": self.min_ms,
            "samples_per_second": self.samples_per_second,
            "runs": self.runs,
            "sittings": len(self.sittings),
            "stalls": self.stalls,
            "steady": self.steady,
            "complete": self.complete,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "memory": None if self.memory is None else asdict(self.memory),
            "batch_size": self.subject.batch_size,
            "threads": self.threads,
            "active_precision": self.active_precision,
            "cores": list(self.cores),
            "cold": [asdict(start) for start in self.cold],
            "concurrency": [requests.summary() for requests in self.concurrency],
            "disturbance": None if self.disturbance is None else asdict(self.disturbance),
            "disturbed": self.disturbed,
            "joules_per_sample": self.joules_per_sample,
            "device": self.device,
            "parts_ms": self.parts_ms,
        }

    def to_json(self) -> str:
        """One JSON object: schema version, raw latencies and everything else, and the summary for other readers."""
        return dump_result("profile", asdict(self), self.summary())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Args:
            text: The JSON object.

        Returns:
            An equal profile. The figures are computed again from the raw latencies.

        Raises:
            ValueError: If ``text`` is not a profile of this schema version.
        """
        return cls.from_content(load_result("profile", text))

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the fields of a profile as JSON has them.

        Raises:
            ValueError: If a field is missing, unknown or damaged.
        """
        try:
            memory, disturbance, energy = content["memory"], content["disturbance"], content["energy"]
            parsed = {
                "subject": Subject.from_content(content["subject"]),
                "machine": Machine.from_content(content["machine"]),
                "options": ProfileOptions(**content["options"]),
                "warm_up_ns": tuple(content["warm_up_ns"]),
                "latencies_ns": tuple(content["latencies_ns"]),
                "sittings": tuple(content["sittings"]),
                "memory": memory and Memory(**memory),
                "cores": tuple(content["cores"]),
                "cold": tuple(ColdStart(**start) for start in content["cold"]),
                "concurrency": tuple(Concurrency.from_content(requests) for requests in content["concurrency"]),
                "disturbance": disturbance and Disturbance(**disturbance),
                "energy": energy and Energy(**energy),
                "parts_ns": {name: tuple(times_ns) for name, times_ns in content["parts_ns"].items()},
            }
            return cls(**{**content, **parsed})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`text` must be a whole profile, got one with a damaged field: {error!r}.") from error

    def _quantile(self, name: str) -> Estimate | None:
        return latency_quantile(self.latencies_ns, quantile=QUANTILES[name], sittings=self.sittings)

"""Throughput under several requests at once."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from exporters.profiling.intervals import Estimate, latency_quantile
from exporters.profiling.runner.units import NANOSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """A network that always has a number of requests in work.

    Args:
        requests: How many at once.
        batch_size: Samples per request.
        elapsed_ns: From the start of the first request to the end of the last, ns.
        latencies_ns: Time of every request from its start to its end, ns, in no particular order.
    """

    requests: int
    batch_size: int
    elapsed_ns: int
    latencies_ns: tuple[int, ...]

    @property
    def samples_per_second(self) -> float:
        """Throughput of all requests together."""
        return self.batch_size * len(self.latencies_ns) / self.elapsed_ns * NANOSECONDS_PER_SECOND

    @property
    def p50_ms(self) -> Estimate | None:
        """Median time of a request, ms; ``None`` with fewer than 6."""
        return latency_quantile(self.latencies_ns, quantile=0.5)

    @property
    def p99_ms(self) -> Estimate | None:
        """Time that 99 % of the requests stay below, ms; ``None`` with fewer than 368."""
        return latency_quantile(self.latencies_ns, quantile=0.99)

    def summary(self) -> dict[str, Any]:
        """Every figure by its name, without the raw latencies; values are of JSON types."""
        estimates = {"p50_ms": self.p50_ms, "p99_ms": self.p99_ms}
        return {
            "requests": self.requests,
            "batch_size": self.batch_size,
            "samples_per_second": self.samples_per_second,
            "runs": len(self.latencies_ns),
            **{name: None if estimate is None else asdict(estimate) for name, estimate in estimates.items()},
        }

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of one such measurement."""
        return cls(**{**content, "latencies_ns": tuple(content["latencies_ns"])})

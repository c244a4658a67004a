"""The figures of a sweep under the names that MLPerf Inference gives to its scenarios."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from exporters.profiling.intervals import Estimate
from exporters.profiling.result import Profile

STREAMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenarios:
    """A network under the shapes of MLPerf Inference's edge scenarios.

    The shapes and the percentiles are MLPerf's; the durations, the load generator and the accuracy run are not, so
    that these are no MLPerf results.

    Args:
        single_stream_ms: 90th percentile of one sample at a time, ms; ``None`` without such runs, or with too few.
        multi_stream_ms: 99th percentile of a query of 8 samples, one query at a time, ms; ``None`` likewise.
        offline_samples_per_second: Largest throughput over all batch sizes and numbers of requests at once.
        offline_batch_size: Batch size of that throughput.
        offline_requests: Number of requests at once of that throughput.
    """

    single_stream_ms: Estimate | None
    multi_stream_ms: Estimate | None
    offline_samples_per_second: float
    offline_batch_size: int
    offline_requests: int

    def summary(self) -> dict[str, Any]:
        """Every figure by its name; values are of JSON types."""
        return asdict(self)


def scenarios(profiles: Sequence[Profile]) -> Scenarios:
    """Name the figures of a sweep.

    Args:
        profiles: Of one network, at batch sizes that include 1 for the single stream and 8 for the multi-stream; with
            ``concurrency`` the offline throughput takes it into account.

    Returns:
        The figures.

    Raises:
        ValueError: If there is no profile, two have one batch size, or they are of different networks.

    Source:
        MLCommons, "MLPerf Inference Rules" (github.com/mlcommons/inference_policies).
    """
    sizes = [each.subject.batch_size for each in profiles]
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"`profiles` must be of different batch sizes, at least one, got {sizes}.")
    networks = {(each.subject.name, each.subject.artifact_sha256) for each in profiles}
    if len(networks) > 1:
        raise ValueError(f"`profiles` must be of one network, got {sorted(name for name, _ in networks)}.")
    by_size = dict(zip(sizes, profiles, strict=True))
    rates = [(each.samples_per_second, size, 1) for size, each in by_size.items()]
    rates += [
        (requests.samples_per_second, size, requests.requests)
        for size, each in by_size.items()
        for requests in each.concurrency
    ]
    best, batch_size, requests_at_once = max(rates)
    return Scenarios(
        single_stream_ms=by_size[1].p90_ms if 1 in by_size else None,
        multi_stream_ms=by_size[STREAMS].p99_ms if STREAMS in by_size else None,
        offline_samples_per_second=best,
        offline_batch_size=batch_size,
        offline_requests=requests_at_once,
    )

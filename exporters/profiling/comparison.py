"""Which of two networks is faster, beside what the same procedure says of a network and itself."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from exporters.profiling.intervals import Estimate, quantile_estimate
from exporters.profiling.runner.machine import Machine
from exporters.profiling.runner.options import ProfileOptions
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND
from exporters.profiling.subject import Subject, dump_result, load_result

# Instances of one network differ by a stable 1 to 2 %, depending on where their memory came to lie; five of each leave
# some of that.
SMALLEST_DIFFERENCE = 0.02

Verdict = Literal["faster", "slower", "indistinguishable"]
Sittings = tuple[tuple[tuple[int, ...], ...], ...]
"""Latencies in ns by sitting, round and run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Latency of a second network against a first, measured in interleaved random blocks.

    Args:
        first: The network to compare with.
        second: The network that the verdict is about.
        machine: Where, read just before.
        options: How long.
        control: What was measured as the first network's equal: ``"other instances"``, loaded from the same artifact,
            or for a session ``"same instance"``, which shows the noise of time but not that of loading.
        steady: Whether the warm-up of all reached a steady state in every sitting.
        first_ns: Latencies of the first network, ns, by sitting, round and run.
        control_ns: Latencies of its equal, likewise.
        second_ns: Latencies of the second network, likewise.
        ratio: Median of the second over median of the first, dimensionless: below 1 the second is faster.
        noise: The same figure for the equal over the first, which is 1 but for noise.
    """

    first: Subject
    second: Subject
    machine: Machine
    options: ProfileOptions
    control: Literal["other instances", "same instance"]
    steady: bool
    first_ns: Sittings
    control_ns: Sittings
    second_ns: Sittings
    ratio: Estimate
    noise: Estimate

    @property
    def first_p50_ms(self) -> Estimate:
        """Median latency of the first network, ms."""
        return _median_ms(self.first_ns)

    @property
    def second_p50_ms(self) -> Estimate:
        """Median latency of the second network, ms."""
        return _median_ms(self.second_ns)

    @property
    def noise_floor(self) -> float:
        """Relative difference below which none is claimed: 2 %, or the farther end of ``noise`` if that is more."""
        farther_end = max(self.noise.high, 1 / self.noise.low)
        return max(SMALLEST_DIFFERENCE, farther_end - 1)

    @property
    def verdict(self) -> Verdict:
        """What can be said of the second network: different only outside both the interval and the noise floor."""
        return verdict_on(self.ratio, floor=self.noise_floor)

    def summary(self) -> dict[str, Any]:
        """Every figure by its name, without the raw latencies; values are of JSON types."""
        return {
            "first": self.first.name,
            "second": self.second.name,
            "first_p50_ms": asdict(self.first_p50_ms),
            "second_p50_ms": asdict(self.second_p50_ms),
            "ratio": asdict(self.ratio),
            "noise": asdict(self.noise),
            "noise_floor": self.noise_floor,
            "verdict": self.verdict,
            "control": self.control,
            "steady": self.steady,
            "sittings": len(self.first_ns),
            "rounds": sum(map(len, self.first_ns)),
            "runs_per_block": len(self.first_ns[0][0]),
        }

    def to_json(self) -> str:
        """One JSON object: schema version, raw latencies and everything else, and the summary for other readers."""
        return dump_result("comparison", asdict(self), self.summary())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Args:
            text: The JSON object.

        Returns:
            An equal comparison.

        Raises:
            ValueError: If ``text`` is not a comparison of this schema version.
        """
        content = load_result("comparison", text)
        try:
            parsed = {
                "first": Subject.from_content(content["first"]),
                "second": Subject.from_content(content["second"]),
                "machine": Machine.from_content(content["machine"]),
                "options": ProfileOptions(**content["options"]),
                "ratio": Estimate(**content["ratio"]),
                "noise": Estimate(**content["noise"]),
                **{name: as_sittings(content[name]) for name in ("first_ns", "control_ns", "second_ns")},
            }
            return cls(**{**content, **parsed})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"`text` must be a whole comparison, got one with a damaged field: {error!r}.") from error


def verdict_on(ratio: Estimate, *, floor: float) -> Verdict:
    """What a ratio of latencies says of the network above the line.

    Args:
        ratio: Its latency over another's, dimensionless.
        floor: Relative difference below which none is claimed, at least 0.

    Returns:
        A difference only where the whole interval lies beyond 1 and the ratio beyond the floor.

    Example:
        >>> verdict_on(Estimate(1.05, 1.01, 1.09), floor=0.02), verdict_on(Estimate(1.05, 0.99, 1.11), floor=0.02)
        ('slower', 'indistinguishable')
    """
    if ratio.low > 1 and ratio.value > 1 + floor:
        return "slower"
    if ratio.high < 1 and 1 / ratio.value > 1 + floor:
        return "faster"
    return "indistinguishable"


def as_sittings(latencies: Iterable[Iterable[Iterable[int]]]) -> Sittings:
    """Latencies by sitting, round and run as tuples."""
    return tuple(tuple(map(tuple, sitting)) for sitting in latencies)


def _median_ms(sittings: Sittings) -> Estimate:
    latencies_ns = [latency for sitting in sittings for block in sitting for latency in block]
    return quantile_estimate(np.divide(latencies_ns, NANOSECONDS_PER_MILLISECOND), quantile=0.5)

"""Quantiles and ratios with 95 % intervals that assume no distribution: pure functions of measured latencies."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND

CONFIDENCE = 0.95
RESAMPLES = 1000
_BATCHES = 20
# Sittings that follow one another share what drifts. Of 40 profiles of seven sittings each, over half an hour of an
# idle machine, the plain interval of the median of sittings held the median of all runs 28 times.
_SHARED_DRIFT = 2.0
_SMALLEST_BATCH = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % confidence interval, all three in one unit.

    Args:
        value: The figure itself.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def required_samples(quantile: float, *, confidence: float = CONFIDENCE) -> int:
    r"""Fewest samples for which the 95 % interval of a quantile has two finite ends.

    The largest of :math:`n` samples bounds the quantile :math:`q` from above only where :math:`q^n \le 0.025`, and
    the smallest bounds it from below only where :math:`(1 - q)^n \le 0.025`.

    Args:
        quantile: :math:`q`, strictly between 0 and 1.
        confidence: Of the interval, strictly between 0 and 1.

    Returns:
        Number of samples: 6 for the median, 36 for 0.9, 368 for 0.99.

    Raises:
        ValueError: If ``quantile`` is not strictly between 0 and 1.

    Example:
        >>> from exporters.profiling.intervals import required_samples
        >>> [required_samples(quantile) for quantile in (0.5, 0.9, 0.99)]
        [6, 36, 368]
    """
    _check_quantile(quantile)
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(quantile, 1 - quantile)))


def quantile_estimate(
    samples: ArrayLike, *, quantile: float, confidence: float = CONFIDENCE, sittings: Sequence[int] = ()
) -> Estimate:
    r"""Sample quantile with its order-statistic interval.

    Of :math:`n` independent samples, the number below the true quantile :math:`q` follows a binomial law, whatever
    the distribution of the samples. The interval runs from the :math:`l`-th smallest to the :math:`u`-th smallest,

    .. math::
        l = \max\{k : P(B \le k - 1) \le 0.025\}, \qquad u = \min\{k : P(B \ge k) \le 0.025\}, \qquad
        B \sim \mathrm{Bin}(n, q),

    and covers the true quantile with probability at least 95 %. The value interpolates linearly between the two
    samples around rank :math:`1 + (n - 1) q`.

    Runs on a machine that drifts or stalls in bursts are not independent. From 100 samples on, the ends' distances from
    rank :math:`nq` are therefore multiplied by :math:`\sqrt{v}`, with :math:`v \ge 1` the factor by which the share of
    samples below the quantile varies more between 20 consecutive batches than independent samples would let it; an
    end beyond all samples becomes the extreme one.

    Sittings differ, too: instances of one network by where their memory lies. Where there are enough for it (6 at
    95 %), the interval is widened to the order-statistic interval of the median of their quantiles, with its ends twice
    as far from that median, because what drifts more slowly than sittings follow one another is common to them.

    Args:
        samples: Figures of any unit, shape ``(n,)``, finite, in the order in which they were drawn.
        quantile: :math:`q`, strictly between 0 and 1.
        confidence: Least probability that the interval covers the true quantile, strictly between 0 and 1.
        sittings: How many samples, in order, were drawn in which sitting; empty for one.

    Returns:
        The quantile in the unit of ``samples``.

    Raises:
        ValueError: If there are too few samples for two finite ends, a sample is not finite, or ``quantile`` is not
            strictly between 0 and 1.

    Source:
        David and Nagaraja, "Order Statistics", 3rd edition, section 7.1; Heidelberger and Lewis, "Quantile Estimation
        in Dependent Sequences", Operations Research 32(1), 1984 (batches).

    Example:
        >>> from exporters.profiling.intervals import quantile_estimate
        >>> quantile_estimate([7.0, 1.0, 2.0, 4.0, 3.0, 9.0], quantile=0.5)  # P(B = 0) = P(B = 6) = 1/64
        Estimate(value=3.5, low=1.0, high=9.0)
        >>> samples = [value for sitting in (3.0, 1.0, 2.0, 2.0, 2.0, 2.0) for value in [sitting] * 9]
        >>> quantile_estimate(samples, quantile=0.5, sittings=[9] * 6)
        Estimate(value=2.0, low=0.0, high=4.0)
    """
    figures = _finite_vector(samples)
    ordered = np.sort(figures)
    required = required_samples(quantile, confidence=confidence)
    if ordered.size < required:
        raise ValueError(
            f"`samples` must hold at least {required} figures for a {100 * confidence:g} % interval of quantile "
            f"{quantile}, got {ordered.size}; measure more runs."
        )
    value = float(np.quantile(ordered, quantile))
    low, high = _interval_ranks(ordered.size, quantile, confidence)
    middle, stretch = quantile * ordered.size, math.sqrt(_excess_variance(figures, value, quantile))
    low = max(1, math.floor(middle - (middle - low) * stretch))
    high = min(ordered.size, math.ceil(middle + (high - middle) * stretch))
    ends = [float(ordered[low - 1]), float(ordered[high - 1])]
    if len(sittings) >= required_samples(0.5, confidence=confidence):
        parts = np.split(figures, np.cumsum(sittings)[:-1])
        quantiles = [float(np.quantile(part, quantile)) for part in parts]
        between = quantile_estimate(quantiles, quantile=0.5, confidence=confidence)
        ends += [between.value + _SHARED_DRIFT * (end - between.value) for end in (between.low, between.high)]
    return Estimate(value, min(ends), max(ends))


def latency_quantile(latencies_ns: Sequence[int], *, quantile: float, sittings: Sequence[int] = ()) -> Estimate | None:
    """Quantile of latencies in ms; ``None`` with fewer runs than its interval needs.

    Args:
        latencies_ns: One per run, ns, in the order of the runs.
        quantile: As for `quantile_estimate`.
        sittings: As for `quantile_estimate`.

    Example:
        >>> latency_quantile([1_000_000] * 6, quantile=0.5), latency_quantile([1_000_000] * 6, quantile=0.9)
        (Estimate(value=1.0, low=1.0, high=1.0), None)
    """
    if len(latencies_ns) < required_samples(quantile):
        return None
    latencies_ms = np.divide(latencies_ns, NANOSECONDS_PER_MILLISECOND)
    return quantile_estimate(latencies_ms, quantile=quantile, sittings=sittings)


def ratio_of_medians(
    numerator: ArrayLike, denominator: ArrayLike, *, sittings: tuple[Sequence[int], Sequence[int]] = ((), ())
) -> Estimate:
    r"""Ratio of the medians of two separate measurements, with a conservative 95 % interval.

    Both medians lie in their 97.5 % order-statistic intervals at once with probability at least 95 % (Bonferroni), and
    then their ratio lies between the ratios of opposite ends. Nothing is said of what else differs between the two
    measurements: use `median_ratio` on interleaved ones.

    Args:
        numerator: Positive figures, shape ``(n,)``, at least 7.
        denominator: Likewise, of any length of at least 7.
        sittings: How many of both were drawn in which sitting, as for `quantile_estimate`; 7 of each are enough.

    Returns:
        The ratio, dimensionless.

    Raises:
        ValueError: If there are too few samples, or one is not finite.

    Example:
        >>> from exporters.profiling.intervals import ratio_of_medians
        >>> ratio_of_medians([2.0, 2.0, 2.0, 3.0, 4.0, 4.0, 4.0], [1.0] * 7)  # 7 samples: smallest and largest
        Estimate(value=3.0, low=2.0, high=4.0)
    """
    confidence = 1 - (1 - CONFIDENCE) / 2
    above, below = (
        quantile_estimate(part, quantile=0.5, confidence=confidence, sittings=counts)
        for part, counts in zip((numerator, denominator), sittings, strict=True)
    )
    return Estimate(above.value / below.value, above.low / below.high, above.high / below.low)


def median_ratio(numerator: Sequence[ArrayLike], denominator: Sequence[ArrayLike], *, seed: int) -> Estimate:
    r"""Ratio of two medians with a paired, two-level block-bootstrap interval.

    Both arguments hold one matrix per sitting, of instances loaded afresh, and row :math:`i` of both was measured in
    the same round, so a disturbance that lasts longer than a block hits both. The bootstrap draws whole sittings and
    in each of them whole rounds with replacement, the same for numerator and denominator, 1000 times; the interval
    holds the middle 95 % of the resampled ratios.

    Args:
        numerator: Latencies above the line, one matrix of shape ``(rounds, block)`` per sitting, finite and above 0.
        denominator: Latencies below the line in the same unit, with the same sittings and rounds.
        seed: Seed of the resampling.

    Returns:
        The dimensionless ratio of the medians over everything.

    Raises:
        ValueError: If there is no sitting, the sittings or rounds of the two differ, or one is not a matrix of finite
            figures above 0.

    Source:
        Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals of Statistics 17(3),
        1989 (resampling of blocks); Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8
        (resampling at two levels).

    Example:
        >>> from exporters.profiling.intervals import median_ratio
        >>> median_ratio([[[2.0, 2.0], [6.0, 6.0]]], [[[1.0, 1.0], [3.0, 3.0]]], seed=0)
        Estimate(value=2.0, low=2.0, high=2.0)
    """
    above = [_rounds("numerator", sitting) for sitting in numerator]
    below = [_rounds("denominator", sitting) for sitting in denominator]
    counts = [len(sitting) for sitting in above]
    if not counts or counts != [len(sitting) for sitting in below]:
        raise ValueError(
            f"`numerator` and `denominator` must have the same number of rounds in each of the same sittings, "
            f"at least one, got {counts} and {[len(sitting) for sitting in below]}."
        )
    generator = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        drawn = [
            (sitting, generator.integers(counts[sitting], size=counts[sitting]))
            for sitting in generator.integers(len(counts), size=len(counts))
        ]
        ratios[index] = _pooled_median(above, drawn) / _pooled_median(below, drawn)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    everything = [(sitting, np.arange(count)) for sitting, count in enumerate(counts)]
    return Estimate(_pooled_median(above, everything) / _pooled_median(below, everything), float(low), float(high))


def count_stalls(samples: ArrayLike) -> int:
    """Number of samples that lie more than three interquartile ranges above the third quartile.

    Args:
        samples: Figures of any unit, shape ``(n,)``, at least one, finite.

    Returns:
        Number of stalls, 0 to n.

    Raises:
        ValueError: If ``samples`` is empty or holds a figure that is not finite.

    Source:
        Tukey, "Exploratory Data Analysis", 1977, section 2D (the outer fence).

    Example:
        >>> from exporters.profiling.intervals import count_stalls
        >>> count_stalls([1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 11.1])  # quartiles 2.5 and 7.5, fence at 22.5
        0
        >>> count_stalls([1.0, 2.0, 3.0, 4.0, 30.0])  # quartiles 2 and 4, fence at 10
        1
    """
    figures = _finite_vector(samples)
    first, third = np.quantile(figures, [0.25, 0.75])
    return int(np.count_nonzero(figures > third + 3 * (third - first)))


def _interval_ranks(count: int, quantile: float, confidence: float) -> tuple[int, int]:
    successes = np.arange(count + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    log_choices = log_factorial[count] - log_factorial - log_factorial[::-1]
    log_mass = log_choices + successes * math.log(quantile) + (count - successes) * math.log1p(-quantile)
    mass = np.exp(log_mass)
    tail = (1 - confidence) / 2
    at_most, at_least = np.cumsum(mass), np.cumsum(mass[::-1])[::-1]
    return int(np.searchsorted(at_most, tail, side="right")), int(np.argmax(at_least <= tail))


def _excess_variance(figures: np.ndarray, value: float, quantile: float) -> float:
    """Variance of the share below ``value`` between batches, over that of independent samples; at least 1."""
    length = figures.size // _BATCHES
    if length < _SMALLEST_BATCH:
        return 1.0
    below = figures[: length * _BATCHES].reshape(_BATCHES, length) <= value
    return max(1.0, length * float(below.mean(axis=1).var(ddof=1)) / (quantile * (1 - quantile)))


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile < 1:
        raise ValueError(f"`quantile` must lie strictly between 0 and 1, got {quantile!r}.")


def _finite_vector(samples: ArrayLike) -> np.ndarray:
    figures = np.asarray(samples, dtype=np.float64)
    if figures.ndim != 1 or figures.size == 0 or not np.isfinite(figures).all():
        raise ValueError(f"`samples` must be a non-empty vector of finite figures, got shape {figures.shape}.")
    return figures


def _pooled_median(sittings: Sequence[np.ndarray], drawn: Iterable[tuple[int, np.ndarray]]) -> float:
    return float(np.median(np.concatenate([sittings[sitting][rounds].ravel() for sitting, rounds in drawn])))


def _rounds(name: str, figures: ArrayLike) -> np.ndarray:
    rounds = np.asarray(figures, dtype=np.float64)
    if rounds.ndim != 2 or rounds.size == 0:
        raise ValueError(f"`{name}` must have sittings of shape (rounds, block), not empty, got {rounds.shape}.")
    if not (np.isfinite(rounds).all() and (rounds > 0).all()):
        raise ValueError(f"`{name}` must hold finite latencies above 0, got minimum {rounds.min()}.")
    return rounds

import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.profiling.intervals import (
    Estimate,
    count_stalls,
    median_ratio,
    quantile_estimate,
    required_samples,
)

LATENCIES = st.lists(st.floats(0.01, 1e3), min_size=6, max_size=80)
QUANTILES = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


def evenly_spread(count):
    """The numbers from 1 to ``count``, in an order in which every stretch has small and large ones."""
    golden = (np.arange(count) * (5**0.5 - 1) / 2) % 1
    return golden.argsort().argsort() + 1


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368), (0.01, 368)])
def test_required_samples_is_the_first_count_whose_extremes_bound_the_quantile(quantile, count):
    # The largest of n samples stays below the quantile with probability max(q, 1 - q)^n.
    assert max(quantile, 1 - quantile) ** count <= 0.025 < max(quantile, 1 - quantile) ** (count - 1)
    assert required_samples(quantile) == count


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.5, float("nan")])
def test_a_quantile_outside_zero_and_one_is_refused(quantile):
    with pytest.raises(ValueError, match=rf"`quantile` must lie strictly between 0 and 1, got {quantile}"):
        required_samples(quantile)


@given(QUANTILES, st.integers(0, 3000))
def test_ends_are_the_tightest_order_statistics_with_equal_tails(quantile, extra):
    count = required_samples(quantile) + extra
    estimate = quantile_estimate(evenly_spread(count), quantile=quantile)  # sample k is its own rank
    below = scipy.stats.binom(count, quantile)
    assert below.cdf(estimate.low - 1) <= 0.025 < below.cdf(estimate.low)
    assert below.sf(estimate.high - 1) <= 0.025 < below.sf(estimate.high - 2)


def test_ends_agree_with_the_exact_law_for_very_many_samples():
    count = 400_000
    estimate = quantile_estimate(evenly_spread(count), quantile=0.99)
    # ppf(p) is the first k with cdf(k) >= p; the tails exclude everything before and after it.
    below = scipy.stats.binom(count, 0.99)
    assert (estimate.low, estimate.high) == (below.ppf(0.025), below.isf(0.025) + 1)


def test_ends_are_stretched_by_what_batches_differ_more_than_chance():
    # 20 batches of 10; in half of them all samples are below the median, in the others none: their shares have variance
    # 20/19 * 0.25, which is 10 * 20/19 times that of the mean of ten independent coins.
    low, high = np.linspace(1, 2, 100), np.linspace(3, 4, 100)
    figures = np.concatenate([low.reshape(10, 10), high.reshape(10, 10)], axis=1).ravel()
    estimate = quantile_estimate(figures, quantile=0.5)
    below = scipy.stats.binom(200, 0.5)
    stretch = (10 * 20 / 19) ** 0.5
    low_rank = math.floor(100 - (100 - below.ppf(0.025)) * stretch)
    high_rank = math.ceil(100 + (below.isf(0.025) + 1 - 100) * stretch)
    ordered = np.sort(figures)
    assert (estimate.low, estimate.high) == (ordered[low_rank - 1], ordered[high_rank - 1])


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_interval_of_dependent_samples_covers_as_often_as_it_says(memory):
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        noise = generator.normal(size=1200)
        samples = scipy.signal.lfilter([1.0], [1.0, -memory], noise)[200:]  # settled; its median is 0
        estimate = quantile_estimate(samples, quantile=0.5)
        covered += estimate.low <= 0 <= estimate.high
    # 95 % but for the few batches: without the stretch 40 % of the dependent ones would be covered.
    assert covered >= 0.9 * 400


@given(LATENCIES, st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_estimate_contains_its_value_scales_with_the_unit_and_ignores_the_order(samples, factor, random):
    estimate = quantile_estimate(samples, quantile=0.5)
    assert estimate.low <= estimate.value <= estimate.high
    shuffled = random.sample(samples, len(samples))
    assert quantile_estimate(shuffled, quantile=0.5) == estimate
    scaled = quantile_estimate(np.multiply(samples, factor), quantile=0.5)
    expected = [estimate.value * factor, estimate.low * factor, estimate.high * factor]
    np.testing.assert_allclose([scaled.value, scaled.low, scaled.high], expected, rtol=1e-12)


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 6), (0.5, 201), (0.9, 100), (0.99, 400)])
def test_interval_covers_the_true_quantile_of_a_skewed_law_in_95_of_100(quantile, count):
    generator = np.random.default_rng(0)
    law = scipy.stats.lognorm(s=1.0)
    truth, repetitions = law.ppf(quantile), 1000
    covered = 0
    for samples in law.rvs((repetitions, count), random_state=generator):
        estimate = quantile_estimate(samples, quantile=quantile)
        covered += estimate.low <= truth <= estimate.high
    # Four standard errors of a fraction 0.95 of 1000 are 0.028.
    assert covered / repetitions >= 0.95 - 0.028


def test_the_interval_over_sittings_covers_what_instances_differ_by():
    """Instances lie 2 % apart and each repeats itself within 0.1 %: seven know the middle of all, one does not."""
    generator = np.random.default_rng(0)
    covered = {1: 0, 7: 0}
    for _ in range(400):
        for count in covered:
            levels = 1.0 + 0.02 * generator.standard_normal(count)
            samples = np.repeat(levels, 30) + 0.001 * generator.standard_normal(30 * count)
            found = quantile_estimate(samples, quantile=0.5, sittings=[30] * count)
            covered[count] += found.low <= 1.0 <= found.high
    assert covered[1] < 0.1 * 400
    assert covered[7] >= 0.95 * 400  # 1 - 2 / 2**7 = 98.4 % for the smallest and largest of seven alone


def test_the_interval_over_sittings_covers_a_drift_that_they_share():
    """Each sitting keeps 0.9 of what the last one drifted: seven see a third of the way that an hour goes."""
    generator = np.random.default_rng(0)
    steps = generator.standard_normal(7 * 4000)
    drift = 0.01 * math.sqrt(1 - 0.9**2) * scipy.signal.lfilter([1.0], [1.0, -0.9], steps)
    levels = 1.0 + drift + 0.01 * generator.standard_normal(drift.size)
    covered = 0
    for start in range(0, levels.size, 70):
        samples = np.repeat(levels[start : start + 7], 30)
        found = quantile_estimate(samples, quantile=0.5, sittings=[30] * 7)
        covered += found.low <= 1.0 <= found.high
    assert covered >= 0.95 * 400


def test_five_sittings_are_too_few_for_an_interval_of_their_own():
    samples = [level for level in (1.0, 2.0, 3.0, 4.0, 5.0) for _ in range(4)]
    assert quantile_estimate(samples, quantile=0.5, sittings=[4] * 5) == quantile_estimate(samples, quantile=0.5)


def test_a_quantile_is_refused_where_no_sample_bounds_it():
    with pytest.raises(ValueError, match=r"at least 368 figures for a 95 % interval of quantile 0.99, got 367"):
        quantile_estimate(np.ones(367), quantile=0.99)


@pytest.mark.parametrize("samples", [[], [[1.0] * 6], [1.0] * 6 + [float("nan")]])
def test_samples_that_are_no_finite_vector_are_refused(samples):
    with pytest.raises(ValueError, match=rf"`samples` must be a non-empty vector.*got shape \({len(samples)},"):
        quantile_estimate(samples, quantile=0.5)


def test_stalls_lie_strictly_beyond_the_outer_fence():
    # Quartiles of 1, 2, 3, 4, x are 2 and 4 for every x >= 4, so the fence is 4 + 3 (4 - 2) = 10.
    assert count_stalls([1.0, 2.0, 3.0, 4.0, 10.0]) == 0
    assert count_stalls([1.0, 2.0, 3.0, 4.0, 10.01]) == 1
    assert count_stalls([7.0]) == 0


@given(LATENCIES)
def test_stalls_are_those_beyond_scipys_interquartile_range(samples):
    fence = np.percentile(samples, 75) + 3 * scipy.stats.iqr(samples)
    assert count_stalls(samples) == sum(sample > fence for sample in samples)


@settings(max_examples=10)
@given(st.lists(st.lists(st.floats(0.1, 10), min_size=2, max_size=2), min_size=1, max_size=8), st.floats(0.1, 10))
def test_ratio_of_a_network_and_its_exact_multiple_is_that_multiple(blocks, factor):
    estimate = median_ratio([np.multiply(blocks, factor)], [blocks], seed=0)
    np.testing.assert_allclose([estimate.value, estimate.low, estimate.high], factor, rtol=1e-12)


def test_ratio_interval_of_one_sitting_agrees_with_scipys_paired_bootstrap():
    generator = np.random.default_rng(0)
    above, below = generator.lognormal(0.2, 0.1, (40, 1)), generator.lognormal(0.0, 0.1, (40, 1))
    estimate = median_ratio([above], [below], seed=1)
    reference = scipy.stats.bootstrap(
        (above[:, 0], below[:, 0]),
        lambda x, y: np.median(x) / np.median(y),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=3000,
        rng=2,
    ).confidence_interval
    # Two bootstraps of 1000 and 3000 draws differ by Monte Carlo error: a tenth of the interval is ample.
    width = reference.high - reference.low
    np.testing.assert_allclose([estimate.low, estimate.high], reference, atol=0.1 * width)
    assert estimate.value == np.median(above) / np.median(below)


def test_ratio_interval_covers_the_truth_under_disturbances_that_last_a_round():
    covered = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        disturbance = generator.lognormal(0.0, 0.3, (30, 1))
        above, below = (disturbance * generator.lognormal(0.0, 0.02, (30, 5)) for _ in range(2))
        estimate = median_ratio([1.1 * above], [below], seed=seed)
        covered += estimate.low <= 1.1 <= estimate.high
    assert covered >= 25  # mean 28.5 of 30, standard deviation 1.2: three deviations below


def test_instances_that_differ_widen_the_interval():
    generator = np.random.default_rng(0)
    blocks = generator.lognormal(0.0, 0.01, (5, 10, 10))
    instances = np.array([0.95, 0.98, 1.0, 1.02, 1.05]).reshape(5, 1, 1)
    alike, unlike = (
        median_ratio(blocks, np.ones_like(blocks), seed=0),
        median_ratio(instances * blocks, np.ones_like(blocks), seed=0),
    )
    assert alike.high - alike.low < 0.01
    assert unlike.high - unlike.low > 0.04


def test_the_same_seed_gives_the_same_interval():
    blocks = [np.random.default_rng(0).lognormal(size=(8, 10))]
    assert median_ratio(blocks, [blocks[0][::-1]], seed=3) == median_ratio(blocks, [blocks[0][::-1]], seed=3)


@pytest.mark.parametrize(
    ("numerator", "denominator", "message"),
    [
        ([], [], r"at least one, got \[\] and \[\]"),
        ([np.ones((2, 3))], [np.ones((3, 3))], r"got \[2\] and \[3\]"),
        ([np.ones((2, 3))] * 2, [np.ones((2, 3))], r"got \[2, 2\] and \[2\]"),
        ([np.ones(3)], [np.ones((3, 1))], r"`numerator` must have sittings of shape.*got \(3,\)"),
        ([np.ones((2, 2))], [np.array([[1.0, 0.0], [1.0, 1.0]])], r"`denominator` must hold.*got minimum 0.0"),
    ],
)
def test_latencies_that_do_not_pair_are_refused(numerator, denominator, message):
    with pytest.raises(ValueError, match=message):
        median_ratio(numerator, denominator, seed=0)


def test_estimate_is_a_value_with_two_ends():
    assert Estimate(2.0, 1.0, 3.0) == Estimate(value=2.0, low=1.0, high=3.0)

import gc
import itertools
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.profiling import ProfileOptions
from exporters.profiling.runner.measure import BLOCK_RUNS, interleave, measure, stopwatch, warm_up

MILLISECOND = 1_000_000


def replay(latencies_ms):
    """A timed run that takes the given times, ms, then raises `StopIteration`."""
    iterator = iter(latencies_ms)
    return lambda: int(next(iterator) * MILLISECOND)


def always(latency_ms):
    return replay(itertools.repeat(latency_ms))


def options(**changes):
    return ProfileOptions(**{"min_seconds": 0, "min_warm_up_seconds": 0, "warm_up_window": 3, **changes})


def test_stopwatch_gives_the_time_between_two_readings_of_the_clock():
    times = iter([1_000, 1_250, 5_000, 5_007])
    timed_run = stopwatch(lambda: None, clock=lambda: next(times))
    assert [timed_run(), timed_run()] == [250, 7]


def test_stopwatch_frees_outputs_after_the_clock_was_read():
    class Outputs:
        pass

    alive_at_reading = []
    outputs = []

    def run():
        result = Outputs()
        outputs.append(weakref.ref(result))
        return result

    def clock():
        alive_at_reading.append(bool(outputs) and outputs[-1]() is not None)
        return len(alive_at_reading)

    stopwatch(run, clock=clock)()
    assert alive_at_reading == [False, True]
    assert outputs[0]() is None


def test_stopwatch_refuses_a_clock_that_stands_still():
    with pytest.raises(ValueError, match=r"`clock` must advance during a run, got 0 ns"):
        stopwatch(lambda: None, clock=lambda: 7)()


def test_warm_up_ends_with_the_first_two_windows_that_agree():
    # Medians of windows of three: 9, 6, 4, 4; the first outlier of the last window does not move its median.
    latencies = [9, 9, 9, 6, 6, 6, 4, 4, 4, 50, 4, 4]
    result = warm_up(replay([*latencies, 1]), options())
    assert result.steady
    assert result.latencies_ns == tuple(latency * MILLISECOND for latency in latencies)


@pytest.mark.parametrize(("second", "steady"), [(98.0, True), (97.9, False), (102.0, True), (102.1, False)])
def test_warm_up_takes_medians_within_the_tolerance_as_agreement(second, steady):
    limit = (100 * 3 + second * 3 + 1) / 1000  # s; the next run after two windows is the last
    rest = [100.0] + [1.0] * 9
    result = warm_up(replay([100.0] * 3 + [second] * 3 + rest), options(max_warm_up_seconds=limit))
    assert result.steady is steady


def test_warm_up_lasts_its_least_time_even_if_steady():
    result = warm_up(always(10), options(min_warm_up_seconds=0.1))
    assert (len(result.latencies_ns), result.steady) == (12, True)  # 100 ms are ten runs; windows are whole


def test_warm_up_that_never_settles_ends_in_time_and_says_so():
    falling = (1000 / 2**index for index in itertools.count())
    result = warm_up(replay(falling), options(max_warm_up_seconds=1.9))
    assert not result.steady
    assert len(result.latencies_ns) == 5  # 1000 + 500 + 250 + 125 = 1875 ms is still below, the fifth run ends it


@pytest.mark.parametrize(
    ("min_runs", "min_seconds", "max_seconds", "runs"),
    [
        (7, 0.0, 60, 7),  # the count decides
        (7, 0.1, 60, 10),  # the time decides: ten runs of 10 ms
        (7, 0.101, 60, 11),
        (1000, 0.1, 0.5, 50),  # cut short
        (1, 0.0, 60, 1),
    ],
)
def test_measurement_ends_when_count_and_time_are_reached_or_time_is_over(min_runs, min_seconds, max_seconds, runs):
    limits = options(min_runs=min_runs, min_seconds=min_seconds, max_seconds=max_seconds)
    assert measure(always(10), limits) == (10 * MILLISECOND,) * runs


@settings(max_examples=5)  # the collection of garbage before each measurement takes a tenth of a second
@given(st.lists(st.floats(0.001, 1e4), min_size=20, max_size=20))
def test_measurement_keeps_every_run_in_order(latencies_ms):
    result = measure(replay(latencies_ms), options(min_runs=20, max_seconds=1e6))
    assert result == tuple(int(latency * MILLISECOND) for latency in latencies_ms)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collector_is_off_while_measuring_and_then_as_before(enabled):
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        states = []
        measure(lambda: states.append(gc.isenabled()) or 1, options(min_runs=2))
        interleave([lambda: states.append(gc.isenabled()) or 1], options(), generator=np.random.default_rng(0))
        assert not any(states)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_garbage_collector_comes_back_when_a_run_fails():
    def failing():
        raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        measure(failing, options())
    assert gc.isenabled()


def record_order(count, limits, *, seed):
    order = []
    timed_runs = [lambda index=index: order.append(index) or (index + 1) * MILLISECOND for index in range(count)]
    return interleave(timed_runs, limits, generator=np.random.default_rng(seed)), order


def test_every_round_holds_one_whole_block_of_each_candidate():
    latencies_ns, order = record_order(3, options(min_runs=40), seed=0)
    assert latencies_ns.shape == (3, 4, BLOCK_RUNS)
    for candidate in range(3):
        assert (latencies_ns[candidate] == (candidate + 1) * MILLISECOND).all()
    blocks = np.reshape(order, (4, 3, BLOCK_RUNS))
    assert (blocks == blocks[:, :, :1]).all()
    assert (np.sort(blocks[:, :, 0], axis=1) == [0, 1, 2]).all()


def test_order_of_the_blocks_is_random_but_follows_the_seed():
    orders = [record_order(2, options(min_runs=400), seed=seed)[1] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    first_of_round = np.reshape(orders[0], (40, 2, BLOCK_RUNS))[:, 0, 0]
    assert 8 <= first_of_round.sum() <= 32  # of 40 fair draws: within 3.8 standard deviations


def test_interleaving_lasts_the_least_time_per_candidate():
    # A round takes 10 x (1 + 2 + 3) = 60 ms, 20 ms per candidate: 0.1 s are five rounds.
    assert record_order(3, options(min_runs=1, min_seconds=0.1), seed=0)[0].shape[1] == 5


def test_interleaving_is_cut_short_after_two_rounds_at_least():
    assert record_order(3, options(min_runs=1000, max_seconds=0.001), seed=0)[0].shape[1] == 2

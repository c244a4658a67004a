import dataclasses

import numpy as np
import pytest

from exporters.profiling import Concurrency, Estimate, scenarios


@pytest.fixture
def at_size(make_profile, subject):
    """A profile at a batch size, whose runs took 1, 2, ... ms, without requests at once."""

    def make(batch_size, runs=400, concurrency=(), **changes):
        profile = make_profile(np.arange(1, runs + 1))
        other = dataclasses.replace(subject, batch_size=batch_size, **changes)
        return dataclasses.replace(profile, subject=other, concurrency=concurrency)

    return make


def test_streams_are_named_percentiles_of_one_and_of_eight_samples(at_size):
    one, eight = at_size(1), at_size(8)
    found = scenarios([one, eight])
    assert found.single_stream_ms == one.p90_ms == Estimate(360.1, *_ends(one.p90_ms))
    assert found.multi_stream_ms == eight.p99_ms


def _ends(estimate):
    return estimate.low, estimate.high


def test_offline_is_the_largest_throughput_over_sizes_and_requests(at_size):
    # Runs of 1, 2, ..., 400 ms are 200.5 ms long on average: 8 / 0.2005 s = 39.9 samples per second.
    assert scenarios([at_size(1), at_size(8)]).offline_samples_per_second == pytest.approx(8 / 0.2005)
    four = Concurrency(requests=4, batch_size=8, elapsed_ns=10**9, latencies_ns=(10**8,) * 40)  # 320 a second
    found = scenarios([at_size(1), at_size(8, concurrency=(four,))])
    assert (found.offline_samples_per_second, found.offline_batch_size, found.offline_requests) == (320.0, 8, 4)


def test_what_was_not_measured_or_not_often_enough_is_none(at_size):
    found = scenarios([at_size(8, runs=367)])
    assert (found.single_stream_ms, found.multi_stream_ms, found.offline_requests) == (None, None, 1)
    assert found.summary()["offline_batch_size"] == 8


def test_profiles_of_several_networks_or_of_one_size_are_refused(at_size):
    with pytest.raises(ValueError, match=r"different batch sizes, at least one, got \[\]"):
        scenarios([])
    with pytest.raises(ValueError, match=r"different batch sizes, at least one, got \[8, 8\]"):
        scenarios([at_size(8), at_size(8)])
    with pytest.raises(ValueError, match=r"of one network, got \['other.onnx', 'student.onnx'\]"):
        scenarios([at_size(1), at_size(8, name="other.onnx")])

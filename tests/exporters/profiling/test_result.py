import dataclasses
import json

import numpy as np
import pytest

from exporters.profiling import Disturbance, Estimate, Profile
from exporters.profiling.subject import SCHEMA_VERSION


def test_percentiles_are_in_milliseconds_with_order_statistic_intervals(make_profile):
    profile = make_profile([4.0, 1.0, 2.0, 3.0, 6.0, 5.0])
    assert profile.p50_ms == Estimate(3.5, 1.0, 6.0)  # six runs: the interval is their whole range


@pytest.mark.parametrize(
    ("runs", "given"),
    [
        (5, set()),
        (6, {"p50_ms"}),
        (36, {"p50_ms", "p90_ms"}),
        (72, {"p50_ms", "p90_ms", "p95_ms"}),
        (367, {"p50_ms", "p90_ms", "p95_ms"}),
    ],
)
def test_a_percentile_that_the_runs_cannot_bound_is_none_with_a_reason(make_profile, runs, given):
    profile = make_profile(np.arange(1, runs + 1))
    percentiles = {"p50_ms", "p90_ms", "p95_ms", "p99_ms"}
    assert {name for name in percentiles if getattr(profile, name) is not None} == given
    assert profile.refusals.keys() == percentiles - given
    assert profile.refusals["p99_ms"].startswith(f"needs at least 368 runs for a 95 % interval, got {runs};")


def test_p99_is_given_from_368_runs_on(make_profile):
    profile = make_profile(np.arange(1, 369))
    assert profile.refusals == {}
    assert profile.p99_ms.high == 368.0  # the largest of 368: 0.99^368 = 0.0247 is below 0.025


def test_throughput_is_samples_per_second_inside_the_runs(make_profile):
    profile = make_profile([1.0, 3.0])  # 2 runs of 8 samples in 4 ms
    assert profile.samples_per_second == pytest.approx(4000.0)
    assert (profile.mean_ms, profile.min_ms, profile.runs) == (2.0, 1.0, 2)


def test_stalls_count_and_stay_in_every_figure(make_profile):
    profile = make_profile([1.0, 2.0, 3.0, 4.0, 90.0])  # fence at 4 + 3 x 2 = 10
    assert profile.stalls == 1
    assert profile.mean_ms == 20.0


@pytest.mark.parametrize(
    ("options", "complete"),
    [
        ({"min_runs": 3, "min_seconds": 0.006}, True),
        ({"min_runs": 4, "min_seconds": 0.006}, False),
        ({"min_runs": 3, "min_seconds": 0.0061}, False),
    ],
)
def test_complete_means_both_count_and_time_were_reached(make_profile, options, complete):
    assert make_profile([1.0, 2.0, 3.0], **options).complete is complete


def test_threads_and_precision_come_from_the_session(make_profile):
    profile = make_profile([1.0])
    assert (profile.threads, profile.active_precision, profile.load_ms) == (2, "fp32", 12.5)


def test_json_round_trip_is_equal_and_keeps_every_raw_latency(make_profile):
    profile = make_profile(np.random.default_rng(0).lognormal(size=400))
    text = profile.to_json()
    assert Profile.from_json(text) == profile
    assert json.loads(text)["latencies_ns"] == list(profile.latencies_ns)


def test_json_carries_the_figures_for_readers_in_other_languages(make_profile):
    profile = make_profile([4.0, 1.0, 2.0, 3.0, 6.0, 5.0])
    summary = json.loads(profile.to_json())["summary"]
    assert summary == profile.summary()
    assert summary["p50_ms"] == {"value": 3.5, "low": 1.0, "high": 6.0}
    assert summary["p90_ms"] is None


def test_figures_are_computed_again_so_that_a_forged_summary_has_no_effect(make_profile):
    profile = make_profile([4.0, 1.0, 2.0, 3.0, 6.0, 5.0])
    content = json.loads(profile.to_json())
    content["summary"]["p50_ms"]["value"] = 0.1
    assert Profile.from_json(json.dumps(content)).p50_ms.value == 3.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": SCHEMA_VERSION + 1}, r"schema version 4, got 5; measure again"),
        ({"schema": "comparison"}, r"schema 'profile', got 'comparison'"),
        ({"options": {"min_runs": 0}}, r"`min_runs` must be at least 1, got 0"),
        ({"machine": {}}, r"damaged field: KeyError\('features'\)"),
        ({"memory": 3}, r"damaged field: TypeError"),
        ({"subject": {}}, r"damaged field: KeyError\('inputs'\)"),
    ],
)
def test_json_of_another_kind_or_version_is_refused(make_profile, change, message):
    content = json.loads(make_profile([1.0]).to_json())
    with pytest.raises(ValueError, match=message):
        Profile.from_json(json.dumps(content | change))


@pytest.mark.parametrize(
    ("text", "message"), [("{", r"must be JSON, got '\{'"), ("[]", r"schema 'profile', got 'list'")]
)
def test_text_that_is_no_result_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Profile.from_json(text)


def test_requests_at_once_give_throughput_and_percentiles(make_profile):
    requests = make_profile([1.0]).concurrency[0]
    assert requests.samples_per_second == pytest.approx(4000.0)  # 2 requests of 8 samples in 4 ms
    assert (requests.p50_ms, requests.p99_ms) == (None, None)  # two requests bound no quantile
    many = dataclasses.replace(requests, latencies_ns=tuple(range(1_000_000, 369_000_000, 1_000_000)))
    assert (many.p50_ms.value, many.p99_ms.high) == (184.5, 368.0)


def test_a_disturbed_measurement_says_so_beside_unchanged_figures(make_profile):
    profile = make_profile([1.0, 3.0])
    quiet = dataclasses.replace(profile, disturbance=Disturbance(share=0.05, busy_cores=0.1, seconds=3.0))
    unknown = dataclasses.replace(profile, disturbance=None)
    assert (profile.disturbed, quiet.disturbed, unknown.disturbed) == (True, False, None)
    assert profile.mean_ms == quiet.mean_ms == 2.0


def test_energy_of_a_sample_is_what_exceeds_the_idle_machine(make_profile):
    profile = make_profile([1.0, 3.0])  # 6 J in 1 s, of which 2 W are idle; 2 runs of 8 samples
    assert profile.joules_per_sample == pytest.approx(4 / 16)
    assert dataclasses.replace(profile, energy=None).joules_per_sample is None

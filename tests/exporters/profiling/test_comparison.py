import json

import pytest

from exporters.profiling import Comparison, Estimate, ProfileOptions


@pytest.fixture
def make_comparison(subject, machine):
    def make(ratio, noise):
        return Comparison(
            first=subject,
            second=subject,
            machine=machine,
            options=ProfileOptions(),
            control="other instances",
            steady=True,
            first_ns=(((1_000_000, 2_000_000), (3_000_000, 4_000_000)), ((5_000_000, 6_000_000),)),
            control_ns=(((1, 2), (3, 4)), ((5, 6),)),
            second_ns=(((1, 2), (3, 4)), ((5, 6),)),
            ratio=Estimate(*ratio),
            noise=Estimate(*noise),
        )

    return make


@pytest.mark.parametrize(
    ("noise", "floor"),
    [
        ((1.0, 0.999, 1.001), 0.02),  # never below 2 %
        ((1.0, 0.99, 1.05), 0.05),
        ((0.9, 0.8, 1.05), 0.25),  # the farther end on the scale of ratios: 1 / 0.8
    ],
)
def test_noise_floor_is_the_farther_end_of_the_noise_and_at_least_two_percent(make_comparison, noise, floor):
    assert make_comparison((1, 1, 1), noise).noise_floor == pytest.approx(floor)


@pytest.mark.parametrize(
    ("ratio", "noise", "verdict"),
    [
        ((1.10, 1.08, 1.12), (1.0, 0.99, 1.01), "slower"),
        ((0.90, 0.88, 0.92), (1.0, 0.99, 1.01), "faster"),
        ((1.10, 0.99, 1.21), (1.0, 0.99, 1.01), "indistinguishable"),  # inside its own interval
        ((0.90, 0.80, 1.01), (1.0, 0.99, 1.01), "indistinguishable"),
        ((1.10, 1.08, 1.12), (1.0, 0.90, 1.01), "indistinguishable"),  # inside the noise: 1 / 0.9 = 1.11
        ((0.90, 0.88, 0.92), (1.0, 0.99, 1.12), "indistinguishable"),  # 1 / 0.9 = 1.11 is below 1.12
        ((1.015, 1.014, 1.016), (1.0, 0.999, 1.001), "indistinguishable"),  # less than instances may differ
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), "indistinguishable"),
    ],
)
def test_verdict_needs_a_difference_outside_both_interval_and_noise(make_comparison, ratio, noise, verdict):
    assert make_comparison(ratio, noise).verdict == verdict


def test_medians_are_in_milliseconds_over_all_sittings(make_comparison):
    assert make_comparison((1, 1, 1), (1, 1, 1)).first_p50_ms == Estimate(3.5, 1.0, 6.0)


def test_json_round_trip_is_equal_and_carries_the_verdict(make_comparison):
    comparison = make_comparison((1.1, 1.08, 1.12), (1.0, 0.99, 1.01))
    text = comparison.to_json()
    assert Comparison.from_json(text) == comparison
    assert json.loads(text)["summary"]["verdict"] == "slower"
    assert json.loads(text)["summary"]["rounds"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 0}, r"schema version 4, got 0; measure again"),
        ({"schema": "profile"}, r"schema 'comparison', got 'profile'"),
        ({"first_ns": 3}, r"damaged field: TypeError"),
        ({"ratio": {"value": 1.0}}, r"damaged field: TypeError"),
        ({"unknown": 1}, r"damaged field: TypeError"),
    ],
)
def test_json_of_another_kind_or_version_is_refused(make_comparison, change, message):
    content = json.loads(make_comparison((1, 1, 1), (1, 1, 1)).to_json())
    with pytest.raises(ValueError, match=message):
        Comparison.from_json(json.dumps(content | change))

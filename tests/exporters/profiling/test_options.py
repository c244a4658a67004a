import dataclasses

import pytest

from exporters.profiling import ProfileOptions


def test_defaults_are_the_documented_protocol():
    options = ProfileOptions()
    assert (options.min_runs, options.min_seconds) == (200, 3.0)
    assert (options.warm_up_window, options.warm_up_tolerance) == (20, 0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_runs": 0}, r"`min_runs` must be at least 1, got 0"),
        ({"warm_up_window": -1}, r"`warm_up_window` must be at least 1, got -1"),
        ({"min_seconds": -0.5}, r"`min_seconds` must be a finite number of at least 0, got -0.5"),
        ({"min_seconds": float("inf")}, r"`min_seconds` must be a finite number of at least 0, got inf"),
        ({"warm_up_tolerance": float("nan")}, r"`warm_up_tolerance` must be a finite number of at least 0, got nan"),
        ({"min_warm_up_seconds": -1}, r"`min_warm_up_seconds` must be .* got -1"),
        ({"max_seconds": 1.0}, r"`max_seconds` must be above 0 and at least `min_seconds` \(3.0\), got 1.0; raise"),
        ({"max_seconds": 0, "min_seconds": 0}, r"`max_seconds` must be above 0 .* got 0"),
        ({"max_warm_up_seconds": 0.1}, r"at least `min_warm_up_seconds` \(0.5\), got 0.1"),
    ],
)
def test_values_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProfileOptions(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_runs": 2.5}, r"`min_runs` must be an integer, got 2.5 of type float"),
        ({"min_runs": True}, r"`min_runs` must be an integer, got True of type bool"),
        ({"min_seconds": "3"}, r"`min_seconds` must be a number, got '3' of type str"),
        ({"max_seconds": None}, r"`max_seconds` must be a number, got None"),
    ],
)
def test_values_of_another_type_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        ProfileOptions(**arguments)


def test_parts_together_last_at_least_as_long_as_the_whole():
    part = ProfileOptions(min_runs=201, min_seconds=3.0, max_seconds=60.0).split(5)
    assert (part.min_runs, part.min_seconds, part.max_seconds) == (41, 0.6, 12.0)
    assert dataclasses.replace(part, min_runs=201, min_seconds=3.0, max_seconds=60.0) == ProfileOptions(min_runs=201)

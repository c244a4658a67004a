"""Profiles over time: kept whole, and compared across separate runs."""

import sqlite3
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from exporters.errors import HistoryError
from exporters.profiling.changes import changes_since
from exporters.profiling.history import History
from exporters.profiling.intervals import ratio_of_medians, required_samples

WEEK = timedelta(days=7)
NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "latency.sqlite")


@pytest.fixture
def measured(make_profile):
    """A profile with a median of so many ms, exactly, and little spread."""

    def make(median_ms, **subject):
        profile = make_profile([median_ms * factor for factor in np.linspace(0.995, 1.005, 101)])
        return replace(profile, disturbance=None, subject=replace(profile.subject, **subject))

    return make


def changes(history, **options):
    return changes_since(history.entries(), NOW - WEEK, **options)


def test_entries_come_back_whole_and_oldest_first(history, measured):
    first, second = measured(2.0), measured(3.0)
    history.add(second, recorded_at=NOW)
    history.add(first, recorded_at=NOW - WEEK)
    assert [(entry.recorded_at, entry.profile) for entry in history.entries()] == [(NOW - WEEK, first), (NOW, second)]


def test_a_time_zone_other_than_utc_is_converted(history, measured):
    history.add(measured(2.0), recorded_at=datetime.fromisoformat("2026-03-20T14:00:00+02:00"))
    assert history.entries()[0].recorded_at == NOW


def test_now_is_the_time_if_none_is_given(history, measured):
    history.add(measured(2.0))
    assert abs(history.entries()[0].recorded_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_entries_of_one_artifact_can_be_asked_for(history, measured):
    history.add(measured(2.0, artifact_sha256="a" * 64))
    history.add(measured(3.0, artifact_sha256="b" * 64))
    assert [entry.profile.subject.artifact_sha256 for entry in history.entries(artifact_sha256="b" * 64)] == ["b" * 64]
    assert history.entries(artifact_sha256="c" * 64) == []


def test_two_writers_lose_nothing(history, measured):
    profile = measured(2.0)
    writers = [threading.Thread(target=lambda: [history.add(profile) for _ in range(10)]) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(history.entries()) == 20


def test_no_file_is_made_by_reading(history):
    assert history.entries() == []
    assert not history.path.exists()


def test_a_session_is_refused(history, measured):
    with pytest.raises(ValueError, match="must be one of an artifact, got one of a session"):
        history.add(measured(2.0, artifact_sha256=None))


def test_a_time_without_a_zone_is_refused(history, measured):
    with pytest.raises(ValueError, match="`recorded_at` must have a time zone, got 2026-03-20T00:00:00"):
        history.add(measured(2.0), recorded_at=datetime(2026, 3, 20))


def test_what_is_no_history_is_refused_and_left_alone(tmp_path, measured):
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to look like one" * 40)
    with pytest.raises(HistoryError, match=r"must be a SQLite file .* got .*notes\.txt"):
        History(text).add(measured(2.0))
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = other.read_bytes()
    with pytest.raises(HistoryError, match=r"got .*other\.sqlite of version 0 with 1 tables"):
        History(other).add(measured(2.0))
    assert other.read_bytes() == before
    with pytest.raises(HistoryError, match=r"got .*missing.latency\.sqlite: unable to open"):
        History(tmp_path / "missing" / "latency.sqlite").add(measured(2.0))


def test_a_file_of_a_later_version_is_refused(history, measured):
    history.add(measured(2.0))
    with sqlite3.connect(history.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(HistoryError, match=r"file of version 1 .* of version 2"):
        history.entries()


def test_profiles_of_another_schema_are_named(history, measured):
    history.add(measured(2.0))
    with sqlite3.connect(history.path) as connection:
        connection.execute("UPDATE profiles SET profile_version = 2")
    connection.close()
    with pytest.raises(HistoryError, match="with some of version 2; start a new file"):
        history.entries()


@pytest.mark.parametrize(("now_ms", "verdict"), [(2.2, "slower"), (1.8, "faster"), (2.0, "indistinguishable")])
def test_the_last_state_is_compared_with_that_of_last_week(history, measured, now_ms, verdict):
    for days, median_ms in ((9, 5.0), (8, 2.0), (3, 7.0), (1, now_ms)):
        history.add(measured(median_ms), recorded_at=NOW - timedelta(days=days))
    (change,) = changes(history)
    assert (change.before.recorded_at, change.after.recorded_at) == (NOW - timedelta(days=8), NOW - timedelta(days=1))
    assert change.ratio.value == pytest.approx(now_ms / 2.0, rel=1e-6)
    assert change.verdict == verdict


def test_no_difference_below_2_percent_is_claimed(history, measured):
    history.add(measured(2.0), recorded_at=NOW - WEEK)
    history.add(measured(2.039), recorded_at=NOW)
    (change,) = changes(history)
    assert change.ratio.low > 1
    assert change.verdict == "indistinguishable"


def test_overlapping_intervals_decide_nothing(history, make_profile):
    for when, factor in ((NOW - WEEK, 1.0), (NOW, 1.1)):
        profile = make_profile([factor * latency for latency in np.linspace(1, 3, 40)])
        history.add(profile, recorded_at=when)
    (change,) = changes(history)
    assert change.ratio.value == pytest.approx(1.1)
    assert change.ratio.low < 1 < change.ratio.high
    assert change.verdict == "indistinguishable"


def test_the_first_entry_stands_in_where_there_is_none_before(history, measured):
    history.add(measured(2.0), recorded_at=NOW - timedelta(days=3))
    history.add(measured(3.0), recorded_at=NOW)
    (change,) = changes(history)
    assert change.before.recorded_at == NOW - timedelta(days=3)


def test_what_was_measured_once_or_not_since_then_has_not_changed(history, measured):
    history.add(measured(2.0), recorded_at=NOW)
    history.add(measured(2.0, batch_size=1), recorded_at=NOW - 3 * WEEK)
    history.add(measured(3.0, batch_size=1), recorded_at=NOW - 2 * WEEK)
    assert changes(history) == []


@pytest.mark.parametrize(
    "other",
    [{"artifact_sha256": "cd" * 32}, {"batch_size": 4}, {"properties": {"runtime": "onnxruntime", "threads": 1}}],
)
def test_different_things_are_not_compared(history, measured, other):
    history.add(measured(2.0), recorded_at=NOW - WEEK)
    history.add(measured(2.0, **other), recorded_at=NOW)
    assert changes(history) == []


def test_another_device_is_not_compared(history, measured):
    history.add(measured(2.0), recorded_at=NOW - WEEK)
    history.add(replace(measured(2.0), device="ssh://pi@garage"), recorded_at=NOW)
    assert changes(history) == []


def test_files_of_one_name_can_be_compared_and_the_hash_is_a_difference(history, measured):
    history.add(measured(2.0), recorded_at=NOW - WEEK)
    history.add(measured(1.0, artifact_sha256="cd" * 32), recorded_at=NOW)
    (change,) = changes(history, known_by="name")
    assert change.verdict == "faster"
    assert change.differences == {"artifact_sha256": ("ab" * 32, "cd" * 32)}


def test_what_else_differs_is_named(history, measured, machine):
    properties = {"runtime": "onnxruntime", "threads": 2, "active_precision": "fp32"}
    old = measured(2.0, properties={**properties, "runtime_version": "1.0"})
    new = measured(2.0, properties={**properties, "runtime_version": "2.0"})
    busy = replace(machine, governor="powersave", load_average=9.0)
    history.add(old, recorded_at=NOW - WEEK)
    history.add(replace(new, machine=busy, steady=False), recorded_at=NOW)
    (change,) = changes(history)
    assert change.differences == {"runtime_version": ("1.0", "2.0"), "governor": ("performance", "powersave")}
    assert change.doubts == ("no steady state (after)",)
    assert change.summary()["differences"]["governor"] == ["performance", "powersave"]


def test_the_interval_of_a_ratio_spans_opposite_ends():
    # 20 samples: P(B <= 4) = 0.0059 <= 0.0125 < P(B <= 5) = 0.0207, so the ends are the 5th and the 16th.
    found = ratio_of_medians(np.arange(1, 21) + 100.0, np.arange(1, 21.0))
    assert (found.value, found.low, found.high) == (110.5 / 10.5, 105 / 16, 116 / 5)


def test_a_higher_confidence_takes_more_samples():
    # 0.5 ** 6 = 0.0156 lies between 0.0125 and 0.025.
    assert (required_samples(0.5), required_samples(0.5, confidence=0.975)) == (6, 7)
    with pytest.raises(ValueError, match=r"at least 7 figures for a 97\.5 % interval"):
        ratio_of_medians([1.0] * 6, [1.0] * 7)

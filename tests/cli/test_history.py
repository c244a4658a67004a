"""`history` and `compare --since`: what was recorded, and what changed."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exporters.profiling import ProfileOptions, profile
from exporters.profiling.history import History

OPTIONS = ProfileOptions(min_runs=40, min_seconds=0, min_warm_up_seconds=0, max_warm_up_seconds=0.2)
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def measured(artifacts):
    return profile(artifacts[0], threads=1, options=OPTIONS)


@pytest.fixture
def recorded(measured, tmp_path):
    """A history in which the network became twice as slow since last week."""
    history = History(tmp_path / "latency.sqlite")
    constant = replace(measured, latencies_ns=(1_000_000,) * 40, sittings=(40,))
    history.add(constant, recorded_at=NOW - timedelta(days=8))
    history.add(replace(constant, latencies_ns=(2_000_000,) * 40), recorded_at=NOW - timedelta(hours=1))
    return history.path


def test_history_lists_what_was_recorded(run, recorded):
    status, out, err = run("history", "--history", recorded)
    assert status == 0, err
    assert "1.000 (1.000 to 1.000)" in out
    assert "2.000 (2.000 to 2.000)" in out
    status, out, err = run("history", "--history", recorded, "--since", "7d", "--json")
    assert status == 0, err
    (entry,) = json.loads(out)["entries"]
    assert entry["p50_ms"]["value"] == 2.0


def test_compare_says_what_changed_since_last_week(run, recorded, artifacts):
    status, out, err = run("compare", "--since", "7d", "--history", recorded, artifacts[0])
    assert status == 0, err
    assert "2.000 (2.000 to 2.000)" in out
    assert "slower" in out
    assert "no common noise floor" in out.replace("\n", " ")
    status, out, _ = run("compare", "--since", "7d", "--history", recorded, "--json")
    (change,) = json.loads(out)["changes"]
    assert (change["ratio"], change["verdict"]) == ({"value": 2.0, "low": 2.0, "high": 2.0}, "slower")


def test_the_environment_names_the_history(run, recorded, monkeypatch):
    monkeypatch.setenv("LIGHTNING_KD_HISTORY", str(recorded))
    status, out, err = run("compare", "--since", "2w")
    assert status == 0, err
    assert "slower" in out


def test_other_artifacts_are_left_out_and_names_can_stand_for_them(run, recorded, artifacts):
    status, out, err = run("compare", "--since", "7d", "--history", recorded, artifacts[1])
    assert status == 0, err
    assert "Nothing was measured both before" in out
    status, out, _ = run("compare", "--since", "7d", "--history", recorded, artifacts[0], "--by-name")
    assert "slower" in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["history"], 2, "`--history` must name the file, got none and $LIGHTNING_KD_HISTORY is not set"),
        (["compare", "--since", "soon"], 2, "must be like 36h, 7d, 2w or 2026-03-20, got 'soon'"),
        (["compare", "--since", "7d"], 2, "`--history` must name the file"),
        (["history", "--history", "NOTES"], 1, "must be a SQLite file"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, tmp_path, arguments, status, message):
    notes = tmp_path / "notes.txt"
    notes.write_text("no database at all, but long enough to look like one " * 40)
    found, out, err = run(*(str(notes) if argument == "NOTES" else argument for argument in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1

"""`profile` and `compare`: tables, JSON and errors."""

import json

import pytest

from exporters.profiling import Comparison, Profile
from exporters.profiling.history import History
from exporters.profiling.layers import LayerProfile

QUICK = ("--min-seconds=0", "--min-runs=40", "--max-seconds=1", "--min-warm-up-seconds=0", "--max-warm-up-seconds=0.2")


def test_profile_prints_one_document_with_every_sample(run, artifacts):
    status, out, err = run("profile", *artifacts, *QUICK, "--threads", "1", "--json")
    assert status == 0, err
    profiles = [Profile.from_json(json.dumps(document)) for document in json.loads(out)["profiles"]]
    assert [profile.subject.name for profile in profiles] == ["net.onnx", "net.xml"]
    assert [profile.threads for profile in profiles] == [1, 1]
    assert all(profile.runs >= 40 and profile.p50_ms.value > 0 for profile in profiles)


def test_profile_prints_a_table_and_says_why_a_percentile_is_missing(run, artifacts):
    status, out, _ = run("profile", artifacts[0], *QUICK, "--max-seconds", "0.001")
    assert status == 0
    assert "net.onnx" in out
    assert "too few runs" in out
    assert "net.onnx: p99_ms needs at least 368 runs" in out


def test_profile_shows_where_the_time_goes_and_records_what_it_measured(run, artifacts, tmp_path):
    history = tmp_path / "latency.sqlite"
    status, out, err = run("profile", artifacts[1], *QUICK, "--threads", "1", "--layers", "--history", history)
    assert status == 0, err
    assert "net.xml on openvino" in out
    assert "3/linear_1" in out
    assert "Added 1 to the history in" in out
    assert [entry.profile.subject.name for entry in History(history).entries()] == ["net.xml"]


def test_profile_prints_layers_and_history_in_the_document(run, artifacts, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_KD_HISTORY", str(tmp_path / "latency.sqlite"))
    status, out, err = run("profile", artifacts[1], *QUICK, "--threads", "1", "--layers", "--json")
    assert status == 0, err
    document = json.loads(out)
    found = LayerProfile.from_json(json.dumps(document["layers"][0]))
    assert "3" in {layer.module for layer in found.layers}
    assert document["history"] == str(tmp_path / "latency.sqlite")


def test_compare_prints_ratio_noise_and_verdict(run, artifacts):
    status, out, err = run("compare", *artifacts, *QUICK)
    assert status == 0, err
    assert "B / A" in out
    assert "A / A" in out
    assert any(f"B is {verdict}" in out for verdict in ("faster", "slower", "indistinguishable"))


def test_compare_prints_one_document(run, artifacts):
    status, out, err = run("compare", *artifacts, *QUICK, "--json")
    assert status == 0, err
    comparison = Comparison.from_json(out)
    assert (comparison.first.name, comparison.second.name) == ("net.onnx", "net.xml")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["profile", "no.onnx"], 1, "must have a manifest beside it, got no no.onnx"),
        (["profile", "ARTIFACT", "--threads", "1000"], 2, "`threads` must be"),
        (["profile", "ARTIFACT", "--threads", "0"], 2, "must be a whole number above 0, got '0'"),
        (["profile", "ARTIFACT", "--batch-size", "4"], 1, "`batch_size` must be 1"),
        (["profile", "ARTIFACT", "--min-runs", "many"], 2, "invalid positive value: 'many'"),
        (["profile", "ARTIFACT", "--min-seconds", "-1"], 2, "`min_seconds` must be a finite number of at least 0"),
        (["profile", "ARTIFACT", "--max-seconds", "1"], 2, "`max_seconds` must be above 0 and at least `min_seconds`"),
        (["compare", "ARTIFACT"], 2, "`ARTIFACT` must be given twice, A and B, got 1"),
        (["compare", "ARTIFACT", "ARTIFACT", "--by-name"], 2, "must come with --since"),
        (["profile", "ARTIFACT", "--layers", "--device", "local"], 2, "`--layers` must come without --device"),
        (["compare", "ARTIFACT", "no.xml"], 1, "got no no.xml"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, artifacts, arguments, status, message):
    found, out, err = run(*(str(artifacts[0]) if argument == "ARTIFACT" else argument for argument in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1

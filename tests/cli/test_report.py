"""`report`: from what `profile --json` printed, or a history, to a table, CSV and a page."""

import json

import pytest

from exporters.profiling import ProfileOptions, profile
from exporters.profiling.history import History
from exporters.profiling.layers import profile_layers

OPTIONS = ProfileOptions(min_runs=40, min_seconds=0, min_warm_up_seconds=0, max_warm_up_seconds=0.2)


@pytest.fixture(scope="module")
def measured(artifacts):
    return [profile(path, threads=1, options=OPTIONS) for path in artifacts]


@pytest.fixture
def results(measured, artifacts, tmp_path):
    layers = profile_layers(artifacts[0], threads=1, runs=3)
    document = {
        "profiles": [json.loads(found.to_json()) for found in measured],
        "layers": [json.loads(layers.to_json())],
    }
    (tmp_path / "results.json").write_text(json.dumps(document))
    return tmp_path / "results.json"


def test_everything_is_written_by_one_command(run, results, tmp_path):
    html, table = tmp_path / "page.html", tmp_path / "table.csv"
    accuracies = ("--accuracy", "net.onnx=0.9", "--accuracy", "net.xml=0.8")
    status, out, err = run("report", results, "--html", html, "--csv", table, *accuracies)
    assert status == 0, err
    assert "net.xml" in out
    assert table.read_text().count("\n") == 3
    page = html.read_text()
    assert all(heading in page for heading in ("Distribution", "Accuracy against latency", "Layers of net.onnx"))


def test_a_history_gives_the_newest_of_each_network(run, measured, tmp_path):
    history = History(tmp_path / "latency.sqlite")
    for found in [measured[0], *measured]:
        history.add(found)
    status, out, err = run("report", "--history", history.path, "--json")
    assert status == 0, err
    assert [row["name"] for row in json.loads(out)["rows"]] == ["net.onnx", "net.xml"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "`--history` must name the file"),
        (["NOTHING"], 1, "must be a file that `profile --json` printed"),
        (["OTHER"], 1, "without `profiles`"),
        (["OLD"], 1, "must have schema version"),
        (["RESULTS", "--accuracy", "net.onnx"], 2, "`--accuracy` must be like student.onnx=0.95, got 'net.onnx'"),
        (["RESULTS", "--accuracy", "net.onnx=95"], 2, "`--accuracy` must be like"),
        (["RESULTS", "--accuracy", "other.onnx=0.9"], 2, "must be of files that were measured, got other.onnx"),
        (["RESULTS", "--since", "7d"], 2, "must come without JSON"),
        (["RESULTS", "--csv", "nowhere/t.csv"], 1, "`path` must be a file that can be written, got nowhere/t.csv"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, results, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    files = {"NOTHING": "no.json", "OTHER": "other.json", "OLD": "old.json", "RESULTS": str(results)}
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "old.json").write_text('{"profiles": [{"schema": "profile", "schema_version": 1}]}')
    found, out, err = run("report", *(files.get(argument, argument) for argument in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1

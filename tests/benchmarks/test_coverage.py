"""The coverage table: rows survive what happens to their process, and the page says what they say."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """Make the benchmarks' modules importable."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def row(model="net", runtime="onnx", **values):
    empty = {"family": "none", "converts": False, "parity": None, "dynamic_batch": False, "int8": None, "why_not": {}}
    return {"model": model, "runtime": runtime} | empty | values


def test_the_page_shows_errors_batches_cosines_and_reasons(benchmarks):
    import _coverage_page

    rows = [
        row(converts=True, parity={"relative_l2": 2e-7}, dynamic_batch=True, int8={"cosine": 0.995}),
        row(runtime="openvino", converts=True, parity={"relative_l2": 3e-7}, why_not={"int8": "too | bad"}),
        row(model="other", why_not={"static": "no such operator"}),
    ]
    tables = _coverage_page.tables({"rows": rows})
    assert "| onnx | 2 | 1 | 1 | 1 | 1 |" in tables["coverage_summary"]
    assert "| `net` | none | 2.0e-07, 0.9950 | 3.0e-07 s, no int8 |" in tables["coverage"]
    assert "| `other` | none | no | not measured |" in tables["coverage"]
    assert "- `net`, openvino, int8: too / bad" in tables["coverage_reasons"]


def test_the_committed_page_is_that_of_the_committed_result(benchmarks):
    import _document

    page = _document.COVERAGE.read_text()
    assert _document.with_tables(page) == page


def test_every_runtime_and_enough_networks_are_in_the_table(benchmarks):
    import _coverage_networks

    candidates = _coverage_networks.CANDIDATES.values()
    vision = [each for each in candidates if each.family not in ("segmentation", "detection backbone", "speech")]
    assert len(vision) >= 24
    assert len({each.family for each in vision}) >= 12
    assert sum(each.family == "speech" for each in candidates) == 5
    assert sum(each.family in ("segmentation", "detection backbone") for each in candidates) >= 4


@pytest.mark.slow
def test_a_row_is_measured_and_a_file_is_continued(tmp_path):
    import subprocess

    output = tmp_path / "coverage.json"
    script = [sys.executable, BENCHMARKS / "export_coverage.py", "--quick", "--json", "--output", output]
    command = [*script, "--models", "whisper encoder", "--runtimes", "onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert found["converts"]
    assert found["parity"]["relative_l2"] <= 1e-5
    assert found["int8"]["cosine"] >= 0.99
    first = json.loads(output.read_text())["rows"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "whisper" not in again.stderr  # nothing was measured anew
    assert json.loads(output.read_text())["rows"] == first

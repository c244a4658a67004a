"""The page of the demo's latencies: its tables from a result with known figures."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    """Make the benchmarks' modules importable."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def row(batch_size, p50_ms, *, precision="fp32", cold=(), **more):
    figure = {"value": p50_ms, "low": 0.9 * p50_ms, "high": 1.1 * p50_ms}
    latency = {"p50_ms": figure, "p90_ms": figure, "p99_ms": None, "active_precision": "fp32", "cold": list(cold)}
    return {
        "network": "student",
        "runtime": "onnx",
        "precision": precision,
        "batch_size": batch_size,
        "size_bytes": 12_345,
        "accuracy": 0.951,
        "latency": {**latency, "steady": True, "disturbed": False, **more},
        "why_not": None,
    }


def start(cached, load_ms):
    return {"cached": cached, "import_ms": 100.0, "load_ms": load_ms, "first_ms": 1.0}


RESULT = {
    "rows": [
        row(1, 2.0, cold=[start(False, 10.0), start(False, 30.0), start(False, 20.0), start(True, 5.0)]),
        row(8, 4.0, steady=False),
        {**row(None, 1.0, precision="int8"), "latency": None, "why_not": "it fell short"},
    ],
    "threads": 1,
    "min_runs": 400,
    "min_seconds": 2.0,
    "machine": {"cpu": "Z80", "cores": 2, "load_average_at_start": 0.25, "system": "CP/M Z80"},
    "versions": {"python": "3.11.7"},
}


def test_one_image_has_intervals_accuracy_and_size_and_says_what_to_doubt():
    import _latency_page

    table = _latency_page.tables(RESULT)["latency_single"]
    assert (
        "| student | ONNX Runtime | fp32 | fp32 | 2.000 (1.800 to 2.200) | 2.000 (1.800 to 2.200) | too few runs "
        "| 95.1 | 12 |" in table
    )
    assert "1 of 2 reached no steady state" in table


def test_batches_have_samples_per_second():
    import _latency_page

    assert "| 500 (2.000) | 2000 (4.000) |" in _latency_page.tables(RESULT)["latency_batches"]


def test_cold_starts_are_medians_without_and_with_the_cache():
    import _latency_page

    table = _latency_page.tables(RESULT)["latency_cold"]
    assert "| no | 100.0 | 20.0 | 1.0 |" in table
    assert "| yes | 100.0 | 5.0 | 1.0 |" in table


def test_machine_and_reasons_are_told():
    import _latency_page

    tables = _latency_page.tables(RESULT)
    assert "| processor | Z80, 2 cores |" in tables["latency_machine"]
    assert tables["latency_reasons"] == "- student, ONNX Runtime, int8: it fell short\n"


def test_without_a_result_every_table_says_so():
    import _latency_page

    assert set(_latency_page.tables(None).values()) == {_latency_page.NOT_MEASURED}

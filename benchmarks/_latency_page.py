"""The generated tables of docs/latency_results.md: machine, one image, batches, cold starts, what could not be had."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from _common import markdown_table

Row = Mapping[str, Any]
NAMES = {
    "pytorch": "PyTorch, eager",
    "pytorch_compiled": "PyTorch, compiled",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
}
NOT_MEASURED = "Not measured yet: run `benchmarks/latency_page.py`.\n"


def tables(result: Mapping[str, Any] | None) -> dict[str, str]:
    """The tables by name, each with a line feed at its end; without a result each says so."""
    makers = {
        "latency_machine": machine_table,
        "latency_single": single_table,
        "latency_batches": batch_table,
        "latency_cold": cold_table,
        "latency_reasons": reasons,
    }
    return {name: NOT_MEASURED if result is None else make(result) for name, make in makers.items()}


def machine_table(result: Mapping[str, Any]) -> str:
    """What the figures belong to."""
    machine, versions = result["machine"], result["versions"]
    load = machine["load_average_at_start"]
    facts = {
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "load average at the start": "unknown" if load is None else f"{load:.1f}",
        "system": machine["system"],
        "threads per run": result["threads"],
        "runs": f"at least {result['min_runs']} and {result['min_seconds']:g} s each",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    return markdown_table(("", ""), [(name, str(fact)) for name, fact in facts.items()])


def single_table(result: Mapping[str, Any]) -> str:
    """Latency of one sample, accuracy and size, for every network, runtime and precision."""
    heads = ("network", "runtime", "precision", "computes in", "p50, ms", "p90, ms", "p99, ms", "accuracy, %", "KB")
    rows = []
    for row in _at(result, 1):
        latency = row["latency"]
        percentiles = (interval(latency[name]) for name in ("p50_ms", "p90_ms", "p99_ms"))
        size = "" if row["size_bytes"] is None else f"{row['size_bytes'] / 1000:.0f}"
        rows.append((*_head(row), str(latency["active_precision"]), *percentiles, f"{100 * row['accuracy']:.1f}", size))
    return markdown_table(heads, rows) + _doubts(_measured(result))


def batch_table(result: Mapping[str, Any]) -> str:
    """Samples per second of batches one after the other, with the median latency of a batch."""
    rows = _measured(result)
    sizes = sorted({row["batch_size"] for row in rows})
    found: dict[tuple[str, ...], dict[int, str]] = {}
    for row in rows:
        latency = row["latency"]
        p50 = latency["p50_ms"]
        shown = "too few runs" if p50 is None else f"{1000 * row['batch_size'] / p50['value']:.0f} ({p50['value']:.3f})"
        found.setdefault(_head(row), {})[row["batch_size"]] = shown
    heads = ("network", "runtime", "precision", *(f"batch of {size}: samples/s (ms)" for size in sizes))
    return markdown_table(heads, [(*head, *(cells.get(size, "") for size in sizes)) for head, cells in found.items()])


def cold_table(result: Mapping[str, Any]) -> str:
    """Medians of import, load and first run in fresh processes, without and with the runtime's cache."""
    rows = []
    for row in _at(result, 1):
        for cached in (False, True):
            starts = [start for start in row["latency"]["cold"] if start["cached"] == cached]
            if starts:
                figures = (f"{median(start[part] for start in starts):.1f}" for part in _PARTS)
                rows.append((*_head(row), "yes" if cached else "no", *figures))
    return markdown_table(("network", "runtime", "precision", "cache", "import, ms", "load, ms", "first run, ms"), rows)


def reasons(result: Mapping[str, Any]) -> str:
    """Why a precision could not be had, one line each."""
    lines = [f"- {', '.join(_head(row))}: {row['why_not']}" for row in result["rows"] if row["why_not"]]
    return "\n".join(lines) + "\n" if lines else "None.\n"


_PARTS = ("import_ms", "load_ms", "first_ms")


def _measured(result: Mapping[str, Any]) -> list[Row]:
    return [row for row in result["rows"] if row["latency"] is not None]


def _at(result: Mapping[str, Any], batch_size: int) -> list[Row]:
    return [row for row in _measured(result) if row["batch_size"] == batch_size]


def _head(row: Row) -> tuple[str, str, str]:
    return row["network"], NAMES[row["runtime"]], row["precision"]


def interval(estimate: Mapping[str, float] | None) -> str:
    """A figure with its interval, both in one unit."""
    if estimate is None:
        return "too few runs"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _doubts(rows: Sequence[Row]) -> str:
    """A sentence on the measurements that are to be doubted; on none if there are none."""
    counts = {
        "reached no steady state": sum(not row["latency"]["steady"] for row in rows),
        "were disturbed by other processes": sum(bool(row["latency"]["disturbed"]) for row in rows),
    }
    told = [f"{count} of {len(rows)} {what}" for what, count in counts.items() if count]
    return (
        f"\nMeasurements that {' and '.join(told)}.\n" if told else f"\nAll {len(rows)} were steady and undisturbed.\n"
    )

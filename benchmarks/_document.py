"""Write the generated tables of docs/methods.md (cost and gain), docs/coverage.md and docs/latency_results.md.

The pages' own words stay; only what is between the marks ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced.
"""

import json
import re
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import _coverage_page
import _latency_page
from _common import RESULTS, markdown_table

from lightning_kd import methods

PAGE = RESULTS.parents[1] / "docs" / "methods.md"
COVERAGE = PAGE.with_name("coverage.md")
LATENCY = PAGE.with_name("latency_results.md")
MEBIBYTE = 2**20
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """The generated tables by name, each with a line feed at its end."""
    return {
        "methods": methods.markdown_table(methods.METHODS),
        "fashion_mnist": accuracy_table(_read("fashion_mnist")),
        "step_cost": cost_table(_read("step_cost_methods")),
        **_coverage_page.tables(_read("export_coverage")),
        **_latency_page.tables(_read("latency_page") if (RESULTS / "latency_page.json").exists() else None),
    }


def accuracy_table(result: Mapping[str, Any]) -> str:
    """Last and best accuracy and gain of each method, for both pairs side by side."""
    pairs = list(result["pairs"].values())
    heads = [f"{content['student']}: {what}" for content in pairs for what in ("last, %", "best, %", "gain, points")]
    names = dict.fromkeys(row["method"] for content in pairs for row in content["rows"])
    rows = [
        (f"`{method}`", *(cell for content in pairs for cell in _accuracies(content["rows"], method)))
        for method in names
    ]
    return markdown_table(("method", *heads), rows)


def _accuracies(rows: Sequence[Mapping[str, Any]], method: str) -> tuple[str, str, str]:
    row, alone = (next(row for row in rows if row["method"] == name) for name in (method, "alone"))
    if "obstacle" in row:
        return row["obstacle"], "", ""
    gains = [own - other for own, other in zip(row["accuracy_last"], alone["accuracy_last"], strict=True)]
    gain = "" if row is alone else f"{mean(gains):+.1f} ± {stdev(gains):.1f}"
    return f"{mean(row['accuracy_last']):.1f} ± {stdev(row['accuracy_last']):.1f}", f"{row['mean_best']:.1f}", gain


def cost_table(result: Mapping[str, Any]) -> str:
    """Ratio of each method's step with its interval, and its memory in MiB, for both pairs side by side."""
    pairs = result["pairs"]
    figures_shown = ("step, ratio", "saved, MiB more", "adapters, MiB")
    heads = [f"{pair}: {figure}" for pair in pairs for figure in figures_shown]
    rows = [
        (f"`{method}`", *(cell for figures in pairs.values() for cell in _costs(figures, method)))
        for method in next(iter(pairs.values()))["methods"]
    ]
    return markdown_table(("method", *heads), rows)


def _costs(figures: Mapping[str, Any], method: str) -> tuple[str, str, str]:
    row, alone = figures["methods"][method], figures["student_memory"]
    if "obstacle" in row:
        return row["obstacle"], "", ""
    low, high = row["interval"]
    saved, adapters = (f"{(row['memory'][key] - alone[key]) / MEBIBYTE:.1f}" for key in ("saved", "parameters"))
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})", saved, adapters


def with_tables(page: str) -> str:
    """``page`` with its generated tables written anew."""
    made = tables()
    return _TABLE.sub(lambda match: match[1] + made[match[2]] + match[3], page)


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


if __name__ == "__main__":
    for page in (PAGE, COVERAGE, LATENCY):
        page.write_text(with_tables(page.read_text()))

"""The generated tables of docs/coverage.md: counts for every runtime, a row for every network, and what failed."""

from collections.abc import Mapping, Sequence
from typing import Any

from _common import markdown_table

Row = Mapping[str, Any]


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """The tables by name, each with a line feed at its end."""
    rows = result["rows"]
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    runtimes.sort()
    return {
        "coverage_summary": summary_table(rows, runtimes),
        "coverage": network_table(rows, runtimes),
        "coverage_reasons": reasons(rows),
    }


def counts(rows: Sequence[Row], runtime: str) -> dict[str, int]:
    """How many networks reach a runtime, and how far."""
    own = [row for row in rows if row["runtime"] == runtime]
    quantised = [row["int8"] for row in own if row["int8"]]
    return {
        "networks": len(own),
        "converted": sum(row["converts"] for row in own),
        "dynamic batch": sum(row["dynamic_batch"] for row in own),
        "int8": len(quantised),
        "int8, cosine at least 0.99": sum(int8.get("cosine", 0) >= 0.99 for int8 in quantised),
    }


def summary_table(rows: Sequence[Row], runtimes: Sequence[str]) -> str:
    """Counts for every runtime."""
    found = {runtime: counts(rows, runtime) for runtime in runtimes}
    heads = list(next(iter(found.values()), {}))
    return markdown_table(("runtime", *heads), [(runtime, *map(str, each.values())) for runtime, each in found.items()])


def network_table(rows: Sequence[Row], runtimes: Sequence[str]) -> str:
    """Relative L2 error in fp32, ``s`` where only a fixed batch converts, in fp16 if measured, and cosine in int8."""
    by_key = {(row["model"], row["runtime"]): row for row in rows}
    lines = [
        (f"`{model}`", family, *(_cell(by_key.get((model, runtime))) for runtime in runtimes))
        for model, family in dict.fromkeys((row["model"], row["family"]) for row in rows)
    ]
    return markdown_table(("network", "family", *runtimes), lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "not measured"
    if not row["converts"]:
        return "no"
    error = f"{row['parity']['relative_l2']:.1e}" if row["parity"] else "not run"
    half = f", fp16 {row['fp16']['relative_l2']:.1e}" if row.get("fp16") else ""
    int8 = row["int8"]
    cosine = "no int8" if int8 is None else f"{int8['cosine']:.4f}" if "cosine" in int8 else "int8 not run"
    return f"{error}{'' if row['dynamic_batch'] else ' s'}{half}, {cosine}"


def reasons(rows: Sequence[Row]) -> str:
    """Why a stage failed, one line each; empty if none did."""
    lines = [
        f"- `{row['model']}`, {row['runtime']}, {stage}: {_brief(reason)}"
        for row in rows
        for stage, reason in row["why_not"].items()
    ]
    return "\n".join(lines) + "\n" if lines else "None.\n"


def _brief(reason: str, length: int = 300) -> str:
    text = reason.replace("|", "/").replace("<", "(").replace(">", ")")
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0] + " ..."

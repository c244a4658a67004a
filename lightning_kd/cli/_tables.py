"""How artifacts are shown, to people and as JSON."""

import json
from collections.abc import Sequence
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from exporters.artifact import Artifact

_SHOWN = 8


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """The manifest, with the path as the user wrote it and the sums of the files."""
    manifest: dict[str, Any] = json.loads(artifact.to_json())
    return {**manifest, "path": str(artifact.path), "size_bytes": artifact.size_bytes, "sha256": artifact.sha256}


def artifact_table(artifacts: Sequence[Artifact]) -> Table:
    """One row per artifact."""
    table = Table(title="Exported")
    for heading in ("file", "precision", "computes in", "verified on"):
        table.add_column(heading)
    for heading in ("size", "max error / range", "relative L2", "cosine", "argmax agreement", "metric drop"):
        table.add_column(heading, justify="right")
    for artifact in artifacts:
        size = decimal(artifact.size_bytes)
        head = (str(artifact.path), artifact.precision, _active(artifact), artifact.verified_on)
        table.add_row(*map(escape, head), size, *_figures(artifact), _drop(artifact))
    return table


def remarks(artifacts: Sequence[Artifact]) -> list[str]:
    """What a user of the files has to know, one sentence each."""
    lines = []
    for artifact in artifacts:
        lines += [f"{artifact.path.name}: {note}" for note in artifact.notes]
        report = artifact.quantization
        if report is not None:
            left = ", ".join(report.left_in_float[:_SHOWN]) or "nothing"
            more = f" and {len(report.left_in_float) - _SHOWN} more" if len(report.left_in_float) > _SHOWN else ""
            lines.append(
                f"{artifact.path.name}: quantised by `{report.recipe}`, the best of {max(1, len(report.trials))}; "
                f"left in float: {left}{more}."
            )
    return [escape(line) for line in lines]


def _active(artifact: Artifact) -> str:
    if artifact.audit is None:
        return "not read back"
    audit = artifact.audit
    counts, unit = (audit.operators, "") if audit.operators else (audit.weight_bytes, " bytes")
    return ", ".join(f"{name} {count}{unit}" for name, count in counts.items())


def _figures(artifact: Artifact) -> tuple[str, str, str, str]:
    if artifact.parity is None:
        return ("not run",) * 4
    outputs = artifact.parity.outputs
    return (
        f"{max(output.max_abs_of_range for output in outputs):.2g}",
        f"{max(output.relative_l2 for output in outputs):.2g}",
        f"{min(output.cosine for output in outputs):.6f}",
        f"{min(output.argmax_agreement for output in outputs):.1%}",
    )


def _drop(artifact: Artifact) -> str:
    return "not measured" if artifact.task is None else f"{artifact.task.drop:.4f} of {artifact.task.reference:.4f}"

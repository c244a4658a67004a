"""``lightning-kd compare``: which of two networks is faster, or what changed since a time, if that can be said."""

import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from exporters.artifact import Artifact
from exporters.profiling import Comparison, compare
from exporters.profiling.changes import NO_COMMON_FLOOR, Change, changes_since
from lightning_kd.cli._console import interval, show, where, working
from lightning_kd.cli._history import add_history_option, moment, need_history
from lightning_kd.cli._parsing import CommandParser, add_json_option, add_measurement_options, measurement_options

_SHOWN = 12


def run(command: str, arguments: Sequence[str]) -> None:
    """Measure two artifacts interleaved, or read from a history what changed."""
    parser = CommandParser(
        command,
        "Measure two exported networks against each other in interleaved random blocks; or, with --since, say what "
        "changed in a history of latencies.",
    )
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="*", help="A, to compare with, and B, to judge")
    parser.add_argument("--since", type=moment, metavar="TIME", help="measure nothing: what changed since 7d, a date")
    parser.add_argument("--by-name", action="store_true", help="with --since: files of one name are one network")
    add_history_option(parser, "to read with --since")
    add_measurement_options(parser)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    if options.since is not None:
        _show_changes(parser, options)
        return
    if len(options.artifacts) != 2:
        parser.error(f"`ARTIFACT` must be given twice, A and B, got {len(options.artifacts)}; or ask with --since")
    if options.by_name or options.history:
        parser.error("`--by-name` and `--history` must come with --since, got none")
    _measure(parser, options)


def _measure(parser: CommandParser, options: Any) -> None:
    stop_rules = measurement_options(parser, options)
    with working() as progress:
        progress.add_task("comparing", total=None)
        comparison = compare(
            *options.artifacts,
            threads=options.threads,
            batch_size=options.batch_size,
            seed=options.seed,
            options=stop_rules,
        )
    remarks = [_verdict(comparison), where(comparison.machine)]
    show(json.loads(comparison.to_json()), [_table(comparison), *remarks], as_json=options.json)


def _table(comparison: Comparison) -> Table:
    table = Table(title="Interleaved, with 95 % intervals")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_row(f"A: p50 of {comparison.first.name}, ms", interval(comparison.first_p50_ms))
    table.add_row(f"B: p50 of {comparison.second.name}, ms", interval(comparison.second_p50_ms))
    table.add_row("B / A", interval(comparison.ratio))
    table.add_row(f"A / A ({comparison.control})", interval(comparison.noise))
    return table


def _verdict(comparison: Comparison) -> str:
    unsteady = "" if comparison.steady else " The warm-up reached no steady state; the machine may be busy."
    return f"B is {comparison.verdict} (no difference below {comparison.noise_floor:.1%} is claimed).{unsteady}"


def _show_changes(parser: CommandParser, options: Any) -> None:
    entries = need_history(parser, options).entries()
    wanted = {Artifact.read(path).sha256 for path in options.artifacts}
    if wanted and options.by_name:
        names = {Artifact.read(path).path.name for path in options.artifacts}
        entries = [entry for entry in entries if entry.profile.subject.name in names]
    elif wanted:
        entries = [entry for entry in entries if entry.profile.subject.artifact_sha256 in wanted]
    changes = changes_since(entries, options.since, known_by="name" if options.by_name else "artifact")
    document = {
        "since": options.since.isoformat(),
        "changes": [change.summary() for change in changes],
        "note": NO_COMMON_FLOOR,
    }
    shown: list[Table | str] = [_changes_table(changes), *_differences(changes), NO_COMMON_FLOOR]
    if not changes:
        shown = [f"Nothing was measured both before {options.since:%Y-%m-%d %H:%M} UTC and after, or twice since then."]
    show(document, shown, as_json=options.json)


def _changes_table(changes: Sequence[Change]) -> Table:
    table = Table(title="p50 now over p50 then, with 95 % intervals")
    for heading in ("network", "device", "runtime", "then (UTC)", "now (UTC)"):
        table.add_column(heading)
    for heading in ("threads", "batch", "then, ms", "now, ms", "now / then", "verdict"):
        table.add_column(heading, justify="right")
    for change in changes:
        old, new = change.before.profile, change.after.profile
        table.add_row(
            escape(new.subject.name),
            escape(new.device),
            str(new.subject.properties["runtime"]),
            *(f"{entry.recorded_at:%Y-%m-%d %H:%M}" for entry in (change.before, change.after)),
            str(new.threads),
            str(new.subject.batch_size),
            *("" if p50_ms is None else f"{p50_ms.value:.3f}" for p50_ms in (old.p50_ms, new.p50_ms)),
            interval(change.ratio),
            change.verdict,
        )
    return table


def _differences(changes: Sequence[Change]) -> list[str]:
    """What else differs and what speaks against a measurement, a sentence each."""
    sentences = []
    for change in changes:
        name = change.after.profile.subject.name
        for what, (old, new) in change.differences.items():
            sentences.append(f"{name}: {what} was {_brief(old)}, is {_brief(new)}.")
        sentences += [f"{name}: {doubt}." for doubt in change.doubts]
    return [escape(sentence) for sentence in sentences]


def _brief(value: Any) -> str:
    return value[:_SHOWN] if isinstance(value, str) and len(value) == 64 else str(value)

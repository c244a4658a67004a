"""``lightning-kd history``: what was measured, and when."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from exporters.profiling.history import Entry
from lightning_kd.cli._console import interval, show
from lightning_kd.cli._history import add_history_option, moment, need_history
from lightning_kd.cli._parsing import CommandParser, add_json_option


def run(command: str, arguments: Sequence[str]) -> None:
    """List the profiles of a history, oldest first."""
    parser = CommandParser(command, "List the latencies that were recorded with `profile --history`.")
    add_history_option(parser, "to read")
    parser.add_argument("--since", type=moment, metavar="TIME", help="leave out what is older: 36h, 7d, 2w or a date")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    entries = need_history(parser, options).entries()
    shown = [entry for entry in entries if options.since is None or entry.recorded_at >= options.since]
    document = [{"recorded_at": entry.recorded_at.isoformat(), **entry.profile.summary()} for entry in shown]
    show({"entries": document}, [_table(shown)], as_json=options.json)


def _table(entries: Sequence[Entry]) -> Table:
    table = Table(title="Latency in ms with 95 % intervals")
    for heading in ("recorded (UTC)", "network", "artifact", "device", "runtime"):
        table.add_column(heading)
    for heading in ("threads", "batch", "p50", "p90"):
        table.add_column(heading, justify="right")
    for entry in entries:
        profile, subject = entry.profile, entry.profile.subject
        runtime = f"{subject.properties['runtime']} {subject.properties.get('runtime_version', '')}"
        table.add_row(
            f"{entry.recorded_at:%Y-%m-%d %H:%M}",
            escape(subject.name),
            (subject.artifact_sha256 or "")[:12],
            escape(profile.device),
            runtime,
            str(profile.threads),
            str(subject.batch_size),
            interval(profile.p50_ms),
            interval(profile.p90_ms),
        )
    return table

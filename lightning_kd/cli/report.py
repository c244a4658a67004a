"""``lightning-kd report``: latencies as a table, CSV and one HTML page with plots."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from exporters.profiling import Profile
from exporters.profiling.layers import LayerProfile
from lightning_kd.cli._console import show
from lightning_kd.cli._history import add_history_option, moment, need_history
from lightning_kd.cli._parsing import CommandParser, add_json_option
from lightning_kd.errors import SetupError
from lightning_kd.extras import import_extra


def run(command: str, arguments: Sequence[str]) -> None:
    """Read profiles and write what was asked for."""
    parser = CommandParser(command, "Show latencies from `profile --json` or a history as a table, CSV and a page.")
    parser.add_argument("results", metavar="JSON", nargs="*", help="what `profile --json` printed; without, a history")
    add_history_option(parser, "to read, the newest of each network, where no JSON is given")
    parser.add_argument("--since", type=moment, metavar="TIME", help="leave out older entries: 36h, 7d, 2w or a date")
    meaning = "accuracy from 0 to 1 of a file, for the plot of accuracy against latency; may be repeated"
    parser.add_argument("--accuracy", action="append", default=[], metavar="FILE=NUMBER", help=meaning)
    parser.add_argument("--html", metavar="FILE", help="page to write")
    parser.add_argument("--csv", metavar="FILE", help="table of numbers to write")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    accuracies = dict(_accuracy(parser, text) for text in options.accuracy)
    profiles, layers = _read(parser, options)
    if not profiles:
        raise SetupError("`JSON` or the history must hold at least one profile, got none.")
    unknown = sorted(set(accuracies) - {profile.subject.name for profile in profiles})
    if unknown:
        parser.error(f"`--accuracy` must be of files that were measured, got {', '.join(unknown)}")
    rows: Any = import_extra("lightning_kd.report.latency_rows", "report")
    written = []
    if options.csv:
        rows.write_csv(profiles, options.csv)
        written.append(options.csv)
    if options.html:
        page: Any = import_extra("lightning_kd.report.latency", "report")
        page.write_report(page.latency_report(profiles, layers=layers, accuracies=accuracies), options.html)
        written.append(options.html)
    remarks = [escape(f"Wrote {path}.") for path in written]
    document = {"rows": rows.flat_rows(profiles), "written": written}
    show(document, [_table(rows.HEADINGS, rows.latency_rows(profiles)), *remarks], as_json=options.json)


def _read(parser: CommandParser, options: Any) -> tuple[list[Profile], list[LayerProfile]]:
    if not options.results:
        entries = need_history(parser, options).entries()
        newest: dict[tuple[Any, ...], Profile] = {}
        for entry in entries:
            if options.since is None or entry.recorded_at >= options.since:
                subject = entry.profile.subject
                key = (subject.artifact_sha256, entry.profile.device, entry.profile.threads, subject.batch_size)
                newest[key] = entry.profile
        return list(newest.values()), []
    if options.history or options.since:
        parser.error("`--history` and `--since` must come without JSON, got both")
    documents = [_document(Path(path)) for path in options.results]
    profiles = [_parse(Profile, content) for document in documents for content in document.get("profiles", ())]
    layers = [_parse(LayerProfile, content) for document in documents for content in document.get("layers", ())]
    return profiles, layers


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupError(f"`JSON` must be a file that `profile --json` printed, got {path}: {error}") from error
    if not isinstance(document, dict) or not {"profiles", "layers"} & set(document):
        raise SetupError(f"`JSON` must be a file that `profile --json` printed, got {path} without `profiles`.")
    return document


def _parse(kind: Any, content: Any) -> Any:
    try:
        return kind.from_json(json.dumps(content))
    except ValueError as error:
        raise SetupError(f"`JSON` must be what this version's `profile --json` printed: {error}") from error


def _accuracy(parser: CommandParser, text: str) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        accuracy = float(number)
    except ValueError:
        accuracy = -1.0
    if not name or not 0 <= accuracy <= 1:
        parser.error(f"`--accuracy` must be like student.onnx=0.95, got {text!r}")
    return name, accuracy


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title="Latency in ms with 95 % intervals")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 3 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    return table

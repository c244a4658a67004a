"""``lightning-kd profile``: latency of exported networks, one after the other."""

import json
from collections.abc import Sequence

from rich.filesize import decimal
from rich.table import Table

from exporters.profiling import Memory, Profile, profile
from lightning_kd.cli._console import interval, show, where, working
from lightning_kd.cli._parsing import CommandParser, add_json_option, add_measurement_options, measurement_options


def run(command: str, arguments: Sequence[str]) -> None:
    """Profile every artifact and print the percentiles with their intervals."""
    parser = CommandParser(command, "Measure the latency of exported networks on this machine.")
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="exported files")
    add_measurement_options(parser)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    stop_rules = measurement_options(parser, options)
    with working() as progress:
        profiles = [
            profile(path, threads=options.threads, batch_size=options.batch_size, seed=options.seed, options=stop_rules)
            for path in progress.track(options.artifacts, description="profiling")
        ]
    document = {"profiles": [json.loads(measured.to_json()) for measured in profiles]}
    show(document, [_table(profiles), where(profiles[0].machine), *_remarks(profiles)], as_json=options.json)


def _table(profiles: Sequence[Profile]) -> Table:
    table = Table(title="Latency in ms with 95 % intervals")
    for heading in ("network", "runtime", "precision", "threads", "p50", "p90", "p99", "samples/s", "load", "memory"):
        table.add_column(heading, justify="left" if heading in ("network", "runtime", "precision") else "right")
    for measured in profiles:
        table.add_row(
            measured.subject.name,
            str(measured.subject.properties["runtime"]),
            measured.active_precision,
            str(measured.threads),
            *map(interval, (measured.p50_ms, measured.p90_ms, measured.p99_ms)),
            f"{measured.samples_per_second:.0f}",
            "" if measured.load_ms is None else f"{measured.load_ms:.0f}",
            _memory(measured.memory),
        )
    return table


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return "unknown"
    return f"{'' if memory.increase_is == 'exact' else 'at least '}{decimal(memory.increase_bytes)}"


def _remarks(profiles: Sequence[Profile]) -> list[str]:
    """What has to be known to believe the figures, one sentence each."""
    remarks = []
    for measured in profiles:
        name = measured.subject.name
        remarks += [f"{name}: {percentile} {reason}" for percentile, reason in measured.refusals.items()]
        if not measured.steady:
            remarks.append(f"{name}: the warm-up reached no steady state; the machine may be busy.")
        if not measured.complete:
            remarks.append(f"{name}: stopped after `--max-seconds` with {measured.runs} runs.")
        if measured.stalls:
            remarks.append(f"{name}: {measured.stalls} of {measured.runs} runs stalled; they count in the percentiles.")
    return remarks

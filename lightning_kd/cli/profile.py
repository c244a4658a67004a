"""``lightning-kd profile``: latency of exported networks, here or on devices."""

import json
from collections.abc import Sequence
from functools import partial
from statistics import median

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from exporters.errors import DeviceError
from exporters.profiling import Memory, Profile, profile
from exporters.profiling.devices import Device
from exporters.profiling.result import THIS_PROCESS
from lightning_kd.cli._console import interval, show, where, working
from lightning_kd.cli._devices import Failure, add_device_options, devices_from, job_from, measure_everywhere
from lightning_kd.cli._history import add_history_option, find_history, record
from lightning_kd.cli._layers import add_layers_option, check_layers_option, layers_table, measure_layers
from lightning_kd.cli._parsing import CommandParser, add_json_option, add_measurement_options, measurement_options


def run(command: str, arguments: Sequence[str]) -> None:
    """Profile every artifact and print the percentiles with their intervals."""
    parser = CommandParser(command, "Measure the latency of exported networks, in this process or on devices.")
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", help="exported files")
    add_measurement_options(parser)
    add_device_options(parser)
    add_layers_option(parser)
    add_history_option(parser, "to add the latencies to")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    check_layers_option(parser, options)
    devices = devices_from(parser, options)
    measure = partial(
        profile,
        threads=options.threads,
        batch_size=options.batch_size,
        seed=options.seed,
        options=measurement_options(parser, options, here=not devices),
    )
    failures: list[Failure] = []
    with working() as progress:
        if devices:
            job = job_from(parser, options)
            progress.add_task(f"profiling on {len(devices)} devices", total=None)

            def measure_there(path: str, device: Device) -> Profile:
                return measure(path, device=device, job=job)

            profiles, failures = measure_everywhere(devices, options.artifacts, measure_there)
        else:
            profiles = [measure(path) for path in progress.track(options.artifacts, description="profiling")]
        layers = measure_layers(options)
    history = find_history(options)
    recorded = [] if history is None else [record(history, profiles)]
    document = {
        "profiles": [json.loads(measured.to_json()) for measured in profiles],
        "layers": [json.loads(found.to_json()) for found in layers],
        "history": None if history is None else str(history.path),
        "failures": [failure._asdict() for failure in failures],
    }
    tables = [*_tables(profiles), *map(layers_table, layers)]
    show(document, [*tables, *_places(profiles), *_remarks(profiles), *recorded], as_json=options.json)
    if failures:
        raise DeviceError("\n".join(f"{failure.artifact} on {failure.device}: {failure.error}" for failure in failures))


def _tables(profiles: Sequence[Profile]) -> list[Table]:
    tables = [_latencies(profiles), _cold_starts(profiles), _concurrency(profiles)]
    return [table for table in tables if table.row_count]


def _latencies(profiles: Sequence[Profile]) -> Table:
    table = Table(title="Latency in ms with 95 % intervals")
    texts = ("network", "device", "runtime", "precision")
    for heading in (*texts, "threads", "p50", "p90", "p99", "samples/s", "load", "memory"):
        table.add_column(heading, justify="left" if heading in texts else "right")
    for measured in profiles:
        table.add_row(
            escape(measured.subject.name),
            escape(measured.device),
            str(measured.subject.properties["runtime"]),
            measured.active_precision,
            str(measured.threads),
            *map(interval, (measured.p50_ms, measured.p90_ms, measured.p99_ms)),
            f"{measured.samples_per_second:.0f}",
            "" if measured.load_ms is None else f"{measured.load_ms:.0f}",
            _memory(measured.memory),
        )
    return table


def _cold_starts(profiles: Sequence[Profile]) -> Table:
    table = Table(title="Start of a fresh process: medians in ms")
    for heading in ("network", "device", "runtime's cache", "import", "load", "first run", "together", "starts"):
        table.add_column(heading, justify="left" if heading in ("network", "device", "runtime's cache") else "right")
    for measured in profiles:
        for cached, name in ((False, "not used"), (True, "used")):
            starts = [start for start in measured.cold if start.cached == cached]
            figures = [(each.import_ms, each.load_ms, each.first_ms, each.total_ms) for each in starts]
            row = [f"{median(column):.1f}" for column in zip(*figures, strict=True)]
            if row:
                table.add_row(escape(measured.subject.name), escape(measured.device), name, *row, str(len(starts)))
    return table


def _concurrency(profiles: Sequence[Profile]) -> Table:
    table = Table(title="Several requests at once: ms per request with 95 % intervals")
    for heading in ("network", "device", "requests", "samples/s", "p50", "p99"):
        table.add_column(heading, justify="left" if heading in ("network", "device") else "right")
    for measured in profiles:
        for found in measured.concurrency:
            table.add_row(
                escape(measured.subject.name),
                escape(measured.device),
                str(found.requests),
                f"{found.samples_per_second:.0f}",
                interval(found.p50_ms),
                interval(found.p99_ms),
            )
    return table


def _places(profiles: Sequence[Profile]) -> list[str]:
    """What each device is, one sentence each; the first measurement there speaks for all."""
    machines = {measured.device: measured.machine for measured in reversed(profiles)}
    return [_of(device, where(machine)) for device, machine in reversed(machines.items())]


def _of(device: str, sentence: str) -> str:
    return sentence if device == THIS_PROCESS else f"{device}: {sentence}"


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return "unknown"
    return f"{'' if memory.increase_is == 'exact' else 'at least '}{decimal(memory.increase_bytes)}"


def _remarks(profiles: Sequence[Profile]) -> list[str]:
    """What has to be known to believe the figures, one sentence each."""
    remarks = []
    for measured in profiles:
        name = _of(measured.device, measured.subject.name)
        remarks += [f"{name}: {percentile} {reason}" for percentile, reason in measured.refusals.items()]
        if not measured.steady:
            remarks.append(f"{name}: the warm-up reached no steady state; the machine may be busy.")
        if not measured.complete:
            remarks.append(f"{name}: stopped after `--max-seconds` with {measured.runs} runs.")
        if measured.disturbance is not None and measured.disturbed:
            remarks.append(
                f"{name}: others kept {measured.disturbance.busy_cores:.1f} cores busy meanwhile; the figures include "
                f"what that cost."
            )
        if measured.stalls:
            remarks.append(f"{name}: {measured.stalls} of {measured.runs} runs stalled; they count in the percentiles.")
    return remarks

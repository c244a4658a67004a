"""Where the time goes, on the command line."""

from typing import Any

from jsonargparse import ArgumentParser
from rich.markup import escape
from rich.table import Table

from exporters.profiling.layers import LayerProfile, profile_layers

_SHOWN = 15


def add_layers_option(parser: ArgumentParser) -> None:
    """Add ``--layers``."""
    parser.add_argument(
        "--layers", action="store_true", help="also time every layer, in further runs in this process, with counters on"
    )


def check_layers_option(parser: ArgumentParser, options: Any) -> None:
    """Layers are timed in this process; to ask for them beside a device is an error of ``parser``."""
    if options.layers and options.devices:
        parser.error("`--layers` must come without --device, got both; run it on the device itself")


def measure_layers(options: Any) -> list[LayerProfile]:
    """Profile the layers of every artifact, if ``--layers`` asks for it."""
    if not options.layers:
        return []
    return [
        profile_layers(path, threads=options.threads, batch_size=options.batch_size, seed=options.seed)
        for path in options.artifacts
    ]


def layers_table(profile: LayerProfile) -> Table:
    """The slowest operations of one network."""
    subject = profile.subject
    table = Table(
        title=escape(
            f"{subject.name} on {subject.properties['runtime']}: {profile.layers_ms:.3f} of {profile.run_ms:.3f} ms in "
            f"{len(profile.layers)} operations, with counters on"
        )
    )
    for heading in ("module", "operator", "operation", "ms", "share"):
        table.add_column(heading, justify="right" if heading in ("ms", "share") else "left")
    slowest = sorted(profile.layers, key=lambda layer: layer.time_ms, reverse=True)
    for layer in slowest[:_SHOWN]:
        module = "unknown" if layer.module is None else layer.module or "the network itself"
        figures = (f"{layer.time_ms:.4f}", f"{profile.share(layer.time_ms):.1%}")
        table.add_row(*map(escape, (module, layer.operator, layer.name)), *figures)
    rest = slowest[_SHOWN:]
    if rest:
        rest_ms = sum(layer.time_ms for layer in rest)
        table.add_row(f"{len(rest)} others", "", "", f"{rest_ms:.4f}", f"{profile.share(rest_ms):.1%}")
    return table

"""``lightning-kd compare``: which of two exported networks is faster, if that can be said."""

import json
from collections.abc import Sequence

from rich.table import Table

from exporters.profiling import Comparison, compare
from lightning_kd.cli._console import interval, show, where, working
from lightning_kd.cli._parsing import CommandParser, add_json_option, add_measurement_options, measurement_options


def run(command: str, arguments: Sequence[str]) -> None:
    """Measure two artifacts interleaved, and print the ratio beside the noise floor."""
    parser = CommandParser(command, "Measure two exported networks against each other in interleaved random blocks.")
    parser.add_argument("first", metavar="A", help="exported file to compare with")
    parser.add_argument("second", metavar="B", help="exported file that the verdict is about")
    add_measurement_options(parser)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    stop_rules = measurement_options(parser, options)
    with working() as progress:
        progress.add_task("comparing", total=None)
        comparison = compare(
            options.first,
            options.second,
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

"""Results on standard output, everything else on standard error."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from exporters.profiling import Estimate, Machine

WIDTH_OF_FILES = 180


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Show progress on standard error; what libraries print to standard output meanwhile goes there as well."""
    text = TextColumn("{task.description}")
    columns = (SpinnerColumn(), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=sys.stderr)
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with contextlib.redirect_stdout(sys.stderr), progress:
        yield progress


def show(document: Mapping[str, Any], tables: Iterable[Table | str], *, as_json: bool) -> None:
    """Print the result of a command.

    Args:
        document: The result as one JSON document.
        tables: The result for people: tables, and sentences between them.
        as_json: Whether to print the document instead of the tables.
    """
    if as_json:
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
        return
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=WIDTH_OF_FILES)
    for table in tables:
        console.print(table, highlight=False)


def interval(estimate: Estimate | None, *, digits: int = 3) -> str:
    """A figure with its 95 % interval.

    Example:
        >>> interval(Estimate(value=1.5, low=1.25, high=2.0), digits=2)
        '1.50 (1.25 to 2.00)'
        >>> interval(None)
        'too few runs'
    """
    if estimate is None:
        return "too few runs"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def where(machine: Machine) -> str:
    """A sentence that says what a latency was measured on."""
    load = "" if machine.load_average is None else f", load average {machine.load_average:.1f} before"
    return f"Measured on {machine.cpu}, {machine.cores} cores{load}."

"""What every benchmark shares: its options, the machine and versions it ran on, tables and result files."""

import argparse
import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from exporters.profiling.runner.machine import read_machine

RESULTS = Path(__file__).parent / "results"
DISTRIBUTIONS = ("lightning-kd", "lightning", "torch", "timm", "numpy")


def options(description: str, *names: str) -> argparse.ArgumentParser:
    """Parser with the options that all benchmarks take.

    Args:
        description: Docstring of the script.
        names: Other names of ``--quick``; the first one names the parsed value.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(*names, "--quick", action="store_true", help="take minutes and write no result file")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")
    parser.add_argument("--output", type=Path, help="result file (default: under benchmarks/results, none if quick)")
    return parser


def machine() -> dict[str, Any]:
    """What the figures belong to: processor, cores, threads, load and accelerator; neither host name nor kernel."""
    found = read_machine()
    return {
        "cpu": found.cpu,
        "cores": found.cores,
        "cpu_quota": found.cpu_quota,
        "threads": torch.get_num_threads(),
        "load_average_at_start": found.load_average,
        "system": f"{platform.system()} {platform.machine()}",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Version of Python and of every distribution that decides a figure."""
    return {"python": platform.python_version()} | {name: version(name) for name in DISTRIBUTIONS}


def silent_trainer(**settings: Any) -> L.Trainer:
    """Trainer on one device that prints, logs and saves nothing beside what ``settings`` ask for."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(**{"devices": 1, "enable_model_summary": False, **quiet, **settings})


@contextmanager
def without_lightning_advice() -> Iterator[None]:
    """Leave out what Lightning says about loaders and devices, and its use of a call that torch deprecates."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*dataloader' does not have many workers")
        warnings.filterwarnings("ignore", message=r".*number of training batches")
        warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r".*GPU available but not used")
        yield


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` beside ``path`` and rename it, so that an interruption leaves the last whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def deliver(content: Mapping[str, Any], arguments: argparse.Namespace, *, default: Path | None) -> Path | None:
    """Write and print a result as ``--output`` and ``--json`` say.

    Args:
        content: The result.
        arguments: The parsed options.
        default: Result file without ``--output``; ``None`` for none.

    Returns:
        The result file; ``None`` if there is none.
    """
    target: Path | None = arguments.output or default
    if target is not None:
        write_json(target, content)
    if arguments.json:
        sys.stdout.write(json.dumps(content) + "\n")
    return target


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for the generated pages, with a line feed at its end."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people; the first column is text, the others are figures."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=index == 0)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)

"""The command ``lightning-kd``: one module per subcommand, imported when it is asked for."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import NamedTuple

from exporters.errors import ExportError
from lightning_kd.errors import KDError

PROGRAM = "lightning-kd"
FAILED, INTERRUPTED = 1, 130


class Command(NamedTuple):
    """A subcommand: the module whose ``run(name, arguments)`` does it, and one line of help."""

    module: str
    summary: str


COMMANDS: Mapping[str, Command] = {
    "fit": Command("training", "train and distil a LightningModule as a YAML file says"),
    "validate": Command("training", "run its validation loop"),
    "test": Command("training", "run its test loop"),
    "predict": Command("training", "run its prediction loop"),
    "export": Command("export", "write a network for ONNX Runtime, OpenVINO or Core ML, checked against PyTorch"),
    "profile": Command("profile", "measure the latency of exported networks"),
    "compare": Command("compare", "measure two exported networks against each other, or say what changed since a time"),
    "history": Command("history", "list the latencies that were recorded"),
    "report": Command("report", "show latencies as a table, CSV and a page with plots"),
    "cache": Command("cache", "ask a teacher once for every image, and write what it says to disk"),
    "match": Command("match", "find the layers of two networks that see the same things"),
    "pseudo-label": Command("pseudo_label", "let a teacher transcribe a data set, resumably and in several processes"),
    "methods": Command("methods", "list the methods of distillation: what each moves, needs and costs, its source"),
    "doctor": Command("doctor", "show which runtimes can be used here, and the command that installs the rest"),
    "demo": Command("demo", "distil, export, verify and profile on handwritten digits, without a download"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one subcommand; errors of this project end in one message on standard error.

    Args:
        args: Arguments after the program's name; ``None`` takes those of the process.

    Returns:
        Exit status: 0, or 1 after an error, or 130 after an interrupt. Wrong arguments end the process with 2.

    Example:
        >>> main(["export", "timm:resnet19", "--to", "onnx", "--output", "exported"])  # prints the nearest names
        1
    """
    arguments = sys.argv[1:] if args is None else list(args)
    name = _parser().parse_args(arguments[:1]).command
    try:
        with _modules_of_the_working_directory():
            importlib.import_module(f"{__name__}.{COMMANDS[name].module}").run(name, arguments[1:])
    except (KDError, ExportError) as error:
        sys.stderr.write(f"{PROGRAM} {name}: error: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"{PROGRAM} {name}: interrupted\n")
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Knowledge distillation for PyTorch Lightning, with verified and profiled exports to the edge.",
        epilog=f"'{PROGRAM} COMMAND --help' lists the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version(PROGRAM)}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False)
    return parser


@contextmanager
def _modules_of_the_working_directory() -> Iterator[None]:
    """Let specs and class paths name modules in the working directory, as ``python -m`` does."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")

"""What the parsers of all subcommands share."""

from argparse import ArgumentTypeError, HelpFormatter
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from exporters.profiling import ProfileOptions
from exporters.threads import check_threads

MODEL = "timm:NAME, torchvision:NAME or package.module:function, with arguments as in timm:resnet18,num_classes=10"


class BriefErrors(ArgumentParser):
    """Ends with the error alone; the usage of a command is what ``--help`` is for."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002 - the base's signature
        """Print ``message`` and exit with status 2."""
        program = self.prog.replace("[options] ", "")
        self.exit(2, f"{program}: error: {message.strip()}\n")


class CommandParser(BriefErrors):
    """Parser of one subcommand.

    Args:
        command: Name of the subcommand.
        description: What it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"lightning-kd {command}", description=description, allow_abbrev=False, formatter_class=HelpFormatter
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` on one line and exit with status 2."""
        super().error(" ".join(message.split()), ex)


def positive(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
    return number


def add_json_option(parser: ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def add_input_options(parser: ArgumentParser) -> None:
    """Add the shape and the seed of inputs."""
    shape = "as in 1 3 224 224; the one that timm publishes if not given"
    parser.add_argument("--input-shape", nargs="+", type=positive, metavar="N", help=shape)
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights and inputs (%(default)s)")


def add_measurement_options(parser: ArgumentParser) -> None:
    """Add the options of a latency measurement; `measurement_options` reads most of them."""
    defaults = ProfileOptions()
    parser.add_argument("--threads", type=positive, help="threads that one run may use; all if not given")
    for name, kind, default, meaning in (
        ("--batch-size", positive, 1, "samples per run"),
        ("--min-runs", positive, defaults.min_runs, "fewest measured runs"),
        ("--min-seconds", float, defaults.min_seconds, "least time to measure, s"),
        ("--max-seconds", float, defaults.max_seconds, "most time to measure, s"),
        ("--min-warm-up-seconds", float, defaults.min_warm_up_seconds, "least time to warm up, s"),
        ("--max-warm-up-seconds", float, defaults.max_warm_up_seconds, "most time to warm up, s"),
        ("--seed", int, 0, "seed of the random inputs"),
    ):
        parser.add_argument(name, type=kind, default=default, help=f"{meaning} (%(default)s)")


def measurement_options(parser: ArgumentParser, options: Any, *, here: bool = True) -> ProfileOptions:
    """Stop rules from the parsed ``options``; impossible values are an error of ``parser``.

    Args:
        parser: Ends with the error.
        options: What it parsed.
        here: Whether it is this machine that must have as many processors as threads.
    """
    try:
        if here:
            check_threads(options.threads)
        return ProfileOptions(
            min_runs=options.min_runs,
            min_seconds=options.min_seconds,
            max_seconds=options.max_seconds,
            min_warm_up_seconds=options.min_warm_up_seconds,
            max_warm_up_seconds=options.max_warm_up_seconds,
        )
    except ValueError as error:
        parser.error(str(error))

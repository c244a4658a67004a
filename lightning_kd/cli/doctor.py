"""``lightning-kd doctor``: what this machine can export to and run, and what installs the rest."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from exporters.doctor import Diagnosis, Finding, diagnose
from exporters.doctor.probes import PROBES
from lightning_kd.cli._console import show, working
from lightning_kd.cli._parsing import CommandParser, add_json_option


def run(command: str, arguments: Sequence[str]) -> None:
    """Look at every extra and print a table, with a command for what is missing."""
    parser = CommandParser(
        command, "Show which runtimes are installed, in which versions, for which devices, and how to install the rest."
    )
    extras = f"extras to look at, of {', '.join(PROBES)}; all if none is given"
    parser.add_argument("extras", metavar="EXTRA", nargs="*", help=extras)
    timeout = "most time for one runtime to answer, s (%(default)s)"
    parser.add_argument("--timeout", type=float, default=300.0, help=timeout)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    unknown = [extra for extra in options.extras if extra not in PROBES]
    if unknown:
        parser.error(f"EXTRA must be among {', '.join(PROBES)}, got {', '.join(unknown)}")
    with working() as progress:
        progress.add_task("asking the runtimes", total=None)
        diagnosis = diagnose(options.extras or tuple(PROBES), timeout_s=options.timeout)
    show(diagnosis.to_content(), [_machine(diagnosis), _table(diagnosis), *_advice(diagnosis)], as_json=options.json)


def _machine(diagnosis: Diagnosis) -> str:
    features = ", ".join(diagnosis.cpu_features) or "no features that are known here"
    cards = "; ".join(diagnosis.graphics_cards) or "no NVIDIA card"
    return f"{diagnosis.system}, Python {diagnosis.python}; {diagnosis.cpu}: {features}; {cards}."


def _table(diagnosis: Diagnosis) -> Table:
    table = Table(title="Runtimes and extras")
    for heading in ("extra", "usable", "packages", "devices", "what for"):
        table.add_column(heading)
    for finding in diagnosis.findings:
        table.add_row(
            finding.extra,
            "yes" if finding.usable else "no",
            ", ".join(f"{package.name} {package.installed or '-'}" for package in finding.packages),
            ", ".join(finding.devices),
            finding.use,
        )
    return table


def _advice(diagnosis: Diagnosis) -> list[str]:
    return [escape(line) for finding in diagnosis.findings for line in _lines(finding)]


def _lines(finding: Finding) -> list[str]:
    problems = [f"{finding.extra}: {problem}." for problem in finding.problems]
    cure = [f"{finding.extra}: run {finding.install}"] if finding.install else []
    return [*problems, *cure, *(f"{finding.extra}: {remark}." for remark in finding.remarks)]

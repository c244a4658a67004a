"""Puts together what the metadata says and what every runtime answers in a process of its own."""

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from exporters.doctor.probes import PROBES
from exporters.doctor.processor import graphics_cards, processor_features, system
from exporters.doctor.requirements import DISTRIBUTION, Package, conflicts, packages_of, remarks, unmet
from exporters.profiling.runner.machine import read_machine

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one extra.

    Args:
        extra: Its name, which for a runtime is that of its format.
        usable: Whether its packages are there, in versions that fit, and answer.
        packages: What it asks for, and what is installed.
        devices: What it computes on.
        use: What can be done with it here; empty if it cannot be used.
        problems: Why it cannot be used, one sentence each.
        remarks: What is worth knowing, one sentence each.
        install: Command that installs it; ``None`` if it is usable.
    """

    extra: str
    usable: bool
    packages: tuple[Package, ...]
    devices: tuple[str, ...]
    use: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    install: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a machine can export to and run.

    Args:
        system: Operating system and architecture.
        python: Version of Python.
        cpu: Model of the processor.
        cpu_features: Features that inference makes use of.
        graphics_cards: NVIDIA cards.
        findings: One per extra.
    """

    system: str
    python: str
    cpu: str
    cpu_features: tuple[str, ...]
    graphics_cards: tuple[str, ...]
    findings: tuple[Finding, ...]

    def to_content(self) -> dict[str, Any]:
        """The diagnosis as JSON has it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def diagnose(extras: Sequence[str] = tuple(PROBES), *, timeout_s: float = 300.0) -> Diagnosis:
    """Look at this machine, and at every extra in a process of its own.

    Args:
        extras: Extras to look at; those of the six runtimes have the formats' names.
        timeout_s: Most time for one answer, s.

    Returns:
        The diagnosis.

    Raises:
        ValueError: If an extra is unknown.

    Example:
        >>> diagnose(["report"]).findings[0].extra
        'report'
    """
    unknown = [extra for extra in extras if extra not in PROBES]
    if unknown:
        raise ValueError(f"`extras` must be among {', '.join(map(repr, PROBES))}, got {unknown}.")
    packages = {extra: packages_of(extra) for extra in extras}
    # Two at a time: importing a runtime takes hundreds of MB. The threads only wait: Python 3.11 cannot parse, as the
    # markers of requirements need, in two threads at once.
    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = {
            extra: pool.submit(_ask, extra, timeout_s)
            for extra, wanted in packages.items()
            if all(package.installed for package in wanted)
        }
    findings = tuple(_finding(extra, packages[extra], answers.get(extra)) for extra in extras)
    return Diagnosis(
        system=system(),
        python=platform.python_version(),
        cpu=read_machine().cpu,
        cpu_features=processor_features(),
        graphics_cards=graphics_cards(),
        findings=findings,
    )


def _finding(extra: str, packages: tuple[Package, ...], answer: Future[dict[str, Any]] | None) -> Finding:
    problems = [f"{package}" for package in packages if not package.fits]
    problems += [*conflicts(extra), *unmet(package.name for package in packages)]
    found: dict[str, Any] = {"devices": [], "use": ""}
    if answer is not None:
        try:
            found = answer.result()
        except _NoAnswerError as error:
            problems.append(str(error))
    return Finding(
        extra=extra,
        usable=not problems,
        packages=packages,
        devices=tuple(found["devices"]),
        use=found["use"],
        problems=tuple(problems),
        remarks=remarks(extra),
        install=f"pip install '{DISTRIBUTION}[{extra}]'" if problems else None,
    )


class _NoAnswerError(Exception):
    """A runtime that ended its process, or did not end it in time."""


def _ask(extra: str, timeout_s: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "exporters.doctor.probes", extra]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise _NoAnswerError(f"importing it took more than {timeout_s:g} s") from error
    if done.returncode != 0:
        raise _NoAnswerError(_reason(done.returncode, done.stderr))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _reason(status: int, stderr: str) -> str:
    if status < 0:
        return f"importing it ended its process with {signal.Signals(-status).name}"
    lines = stderr.strip().splitlines()
    return f"importing it failed: {lines[-1] if lines else f'status {status}'}"

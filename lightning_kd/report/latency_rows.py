"""Latencies as rows: of text for people, of numbers for CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.profiling import Estimate, Profile
from exporters.profiling.result import QUANTILES
from lightning_kd.errors import SetupError

HEADINGS = (
    "network",
    "runtime",
    "precision",
    "threads",
    "batch",
    "p50, ms",
    "p90, ms",
    "p99, ms",
    "samples/s",
    "doubts",
)
_PLAIN = ("mean_ms", "min_ms", "samples_per_second", "runs", "stalls", "steady", "complete", "disturbed", "load_ms")


def latency_rows(profiles: Sequence[Profile]) -> list[tuple[str, ...]]:
    """One row of text per profile, under `HEADINGS`."""
    return [
        (
            label_of(profile, profiles),
            str(profile.subject.properties["runtime"]),
            profile.active_precision or "unknown",
            "unknown" if profile.threads is None else str(profile.threads),
            str(profile.subject.batch_size),
            *map(_interval, (profile.p50_ms, profile.p90_ms, profile.p99_ms)),
            f"{profile.samples_per_second:.0f}",
            ", ".join(doubts(profile)) or "none",
        )
        for profile in profiles
    ]


def label_of(profile: Profile, among: Sequence[Profile]) -> str:
    """The file's name, with hash and device where ``among`` holds several of one name."""
    subject = profile.subject
    details = []
    if len({other.subject.artifact_sha256 for other in among if other.subject.name == subject.name}) > 1:
        details.append((subject.artifact_sha256 or "no file")[:8])
    if len({other.device for other in among}) > 1:
        details.append(profile.device)
    return f"{subject.name} ({', '.join(details)})" if details else subject.name


def doubts(profile: Profile) -> list[str]:
    """What speaks against a measurement, in a few words each."""
    found = {
        "no steady state": not profile.steady,
        "cut short": not profile.complete,
        "machine was busy": bool(profile.disturbed),
        f"{profile.stalls} stalls": profile.stalls > 0,
    }
    return [text for text, holds in found.items() if holds]


def flat_rows(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """One row of numbers per profile, for CSV: every percentile with both ends, in ms."""
    return [_flat(profile) for profile in profiles]


def write_csv(profiles: Sequence[Profile], path: Path | str) -> None:
    """Write `flat_rows` as CSV with a line of headings; what is not known is empty.

    Args:
        profiles: What to write, at least one.
        path: File to write, in an existing folder; one that is there is replaced.

    Raises:
        SetupError: If ``path`` cannot be written.
    """
    rows = flat_rows(profiles)
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise SetupError(f"`path` must be a file that can be written, got {path}: {error.strerror}.") from error


def _flat(profile: Profile) -> dict[str, Any]:
    summary, subject = profile.summary(), profile.subject
    row: dict[str, Any] = {
        "name": subject.name,
        "artifact_sha256": subject.artifact_sha256,
        "device": profile.device,
        "cpu": profile.machine.cpu,
        "runtime": subject.properties["runtime"],
        "runtime_version": subject.properties.get("runtime_version"),
        "active_precision": profile.active_precision,
        "threads": profile.threads,
        "batch_size": subject.batch_size,
    }
    for name in QUANTILES:
        ends = summary[name] or {"value": None, "low": None, "high": None}
        row |= {name: ends["value"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}
    row |= {name: summary[name] for name in _PLAIN}
    row |= {"first_ms": profile.first_ms, "joules_per_sample": profile.joules_per_sample}
    row["peak_bytes"] = None if profile.memory is None else profile.memory.peak_bytes
    return row


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "too few runs"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"

"""What changed between two times of a history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from exporters.profiling.comparison import SMALLEST_DIFFERENCE, Verdict, verdict_on
from exporters.profiling.history import Entry
from exporters.profiling.intervals import Estimate, ratio_of_medians
from exporters.profiling.result import Profile

Known = Literal["artifact", "name"]
NO_COMMON_FLOOR = (
    "Separate runs have no common noise floor: the interval speaks of each run, not of what changed on the machine "
    "between them. Measure both interleaved, with `lightning-kd compare A B`, before acting on a small difference."
)
_NOT_THE_MACHINES_OWN = ("load_average", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One network on one machine, before and after a time.

    Args:
        before: The last profile recorded up to that time, or the first one after it if there is none.
        after: The last profile of all.
        ratio: Median latency of ``after`` over that of ``before``, with an interval that both ends of both medians'
            95 % joint interval allow.
        differences: What else differs, old and new, by name: versions, settings, the artifact's hash.
    """

    before: Entry
    after: Entry
    ratio: Estimate
    differences: Mapping[str, tuple[Any, Any]]

    @property
    def verdict(self) -> Verdict:
        """Faster or slower only where the interval lies beyond 1 and the medians differ by more than 2 %."""
        return verdict_on(self.ratio, floor=SMALLEST_DIFFERENCE)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against either measurement."""
        found = []
        for when, entry in (("before", self.before), ("after", self.after)):
            if entry.profile.disturbed:
                found.append(f"others used the processor ({when})")
            if not entry.profile.steady:
                found.append(f"no steady state ({when})")
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """Every figure by its name; values are of JSON types."""
        subject = self.after.profile.subject
        return {
            "name": subject.name,
            "device": self.after.profile.device,
            "batch_size": subject.batch_size,
            "threads": self.after.profile.threads,
            "before": self.before.recorded_at.isoformat(),
            "after": self.after.recorded_at.isoformat(),
            "ratio": asdict(self.ratio),
            "verdict": self.verdict,
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "doubts": list(self.doubts),
        }


def changes_since(entries: Iterable[Entry], since: datetime, *, known_by: Known = "artifact") -> list[Change]:
    """Compare the state at ``since`` with the newest, for everything that was measured at least twice.

    Profiles belong together if artifact, device, processor, runtime, precision, threads and batch size are the same.

    Args:
        entries: Entries of a history, oldest first.
        since: The time to compare with, with a time zone.
        known_by: ``"artifact"`` compares equal files; ``"name"`` files of one name, such as last week's student and
            today's, in which case the hash is among the differences.

    Returns:
        One change for each group of which something was recorded after ``since``.

    Raises:
        ValueError: If a profile has too few runs for an interval.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_key(entry.profile, known_by), []).append(entry)
    return [_change(*pair) for group in groups.values() if (pair := _ends(group, since)) is not None]


def _ends(group: Sequence[Entry], since: datetime) -> tuple[Entry, Entry] | None:
    earlier = [entry for entry in group if entry.recorded_at <= since]
    later = [entry for entry in group if entry.recorded_at > since]
    before = earlier[-1] if earlier else group[0]
    return (before, later[-1]) if later and later[-1] is not before else None


def _change(before: Entry, after: Entry) -> Change:
    old, new = before.profile, after.profile
    facts = [_facts(profile) for profile in (old, new)]
    names = dict.fromkeys((*facts[0], *facts[1]))
    pairs = {name: (facts[0].get(name), facts[1].get(name)) for name in names}
    return Change(
        before=before,
        after=after,
        ratio=ratio_of_medians(new.latencies_ns, old.latencies_ns, sittings=(new.sittings, old.sittings)),
        differences={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
    )


def _key(profile: Profile, known_by: Known) -> tuple[Any, ...]:
    subject, machine = profile.subject, profile.machine
    gpu = (machine.gpu or {}).get("name")
    return (
        subject.artifact_sha256 if known_by == "artifact" else subject.name,
        profile.device,
        (machine.cpu, machine.memory_bytes, gpu),
        subject.properties.get("runtime"),
        profile.active_precision,
        profile.threads,
        subject.batch_size,
    )


def _facts(profile: Profile) -> dict[str, Any]:
    """What may explain a change, by name."""
    machine = asdict(profile.machine)
    kept = {name: value for name, value in machine.items() if name not in (*_NOT_THE_MACHINES_OWN, "versions")}
    versions = {f"version of {name}": value for name, value in profile.machine.versions.items()}
    inputs = [f"{spec.name} {spec.dtype} {spec.shape}" for spec in profile.subject.inputs]
    return {
        "artifact_sha256": profile.subject.artifact_sha256,
        **profile.subject.properties,
        **kept,
        **versions,
        "inputs": inputs,
        "seed": profile.subject.seed,
    }

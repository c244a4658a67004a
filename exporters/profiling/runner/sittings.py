"""Several sittings of one network, each in a process of its own, as one measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from .disturbance import ProcessorTime, disturbance_of


def join_sittings(sittings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a `Profile` that sittings have together.

    Args:
        sittings: What each found, in order, at least one; the first also holds the requests at once.

    Returns:
        Latencies one after the other, and how many are of which sitting; memory of the largest; processor time and
        energy added up; the rest is the first one's.
    """
    first = sittings[0]
    disturbance = disturbance_of(_processor([sitting["processor"] for sitting in sittings]))
    return {
        **{name: value for name, value in first.items() if name != "processor"},
        "steady": all(sitting["steady"] for sitting in sittings),
        "warm_up_ns": _joined(sitting["warm_up_ns"] for sitting in sittings),
        "latencies_ns": _joined(sitting["latencies_ns"] for sitting in sittings),
        "sittings": [len(sitting["latencies_ns"]) for sitting in sittings],
        "parts_ns": {name: _joined(sitting["parts_ns"][name] for sitting in sittings) for name in first["parts_ns"]},
        "memory": first["memory"] and max((s["memory"] for s in sittings), key=lambda memory: memory["peak_bytes"]),
        "disturbance": disturbance and asdict(disturbance),
        "energy": _energy([sitting["energy"] for sitting in sittings]),
    }


def _joined(parts: Any) -> list[int]:
    return list(chain.from_iterable(parts))


def _processor(spent: Sequence[Sequence[float] | None]) -> ProcessorTime | None:
    known = [times for times in spent if times is not None]
    return ProcessorTime(*map(sum, zip(*known, strict=True))) if len(known) == len(spent) else None


def _energy(spent: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    known = [energy for energy in spent if energy is not None]
    if len(known) < len(spent):
        return None
    seconds = sum(energy["seconds"] for energy in known)
    return {
        **known[0],
        "joules": sum(energy["joules"] for energy in known),
        "seconds": seconds,
        "idle_watts": sum(energy["idle_watts"] * energy["seconds"] for energy in known) / seconds,
    }

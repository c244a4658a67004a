"""Resident memory of this process."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .units import KIBIBYTE

if sys.platform == "darwin":
    import resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of this process, Python, the runtime and everything else loaded included.

    Args:
        peak_bytes: Largest resident size in the life of the process.
        increase_bytes: Rise during load, warm-up and measurement: the figure that belongs to the network.
        increase_is: ``"exact"`` if the peak was reached meanwhile. ``"at least"`` if the process had been larger
            before, so that only the sizes at both ends are known; profile in a fresh process for the exact figure.
        source: Counter of the operating system that was read.
    """

    peak_bytes: int
    increase_bytes: int
    increase_is: Literal["exact", "at least"]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Resident memory of this process at one time.

    Args:
        resident_bytes: Present size.
        peak_bytes: Largest size so far.
        source: Counter of the operating system that was read.
    """

    resident_bytes: int
    peak_bytes: int
    source: str


def read_memory() -> MemoryReading | None:
    """Read the resident memory of this process; ``None`` on systems other than Linux and macOS.

    Linux shows the present and the largest size (``VmRSS``, ``VmHWM``); macOS the largest only (``ru_maxrss``), which
    then stands for both.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        sizes = {name: int(kibibytes) * KIBIBYTE for name, kibibytes in re.findall(r"(Vm\w+):\s+(\d+) kB", status)}
        return MemoryReading(resident_bytes=sizes["VmRSS"], peak_bytes=sizes["VmHWM"], source="VmHWM")
    if sys.platform == "darwin":
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return MemoryReading(resident_bytes=peak_bytes, peak_bytes=peak_bytes, source="ru_maxrss")
    return None


def memory_between(before: MemoryReading, after: MemoryReading) -> Memory:
    """Peak and rise of the resident memory between two readings.

    Args:
        before: Reading before the network was loaded.
        after: Reading after the last run.

    Returns:
        The rise: exact if the peak rose in between, otherwise what the present sizes show at least.

    Example:
        >>> from exporters.profiling.runner.memory import MemoryReading, memory_between
        >>> before = MemoryReading(resident_bytes=40, peak_bytes=50, source="VmHWM")
        >>> after = MemoryReading(resident_bytes=60, peak_bytes=90, source="VmHWM")
        >>> memory_between(before, after)
        Memory(peak_bytes=90, increase_bytes=50, increase_is='exact', source='VmHWM')
    """
    peak_was_reached = after.peak_bytes > before.peak_bytes
    top_bytes = after.peak_bytes if peak_was_reached else after.resident_bytes
    return Memory(
        peak_bytes=after.peak_bytes,
        increase_bytes=max(0, top_bytes - before.resident_bytes),
        increase_is="exact" if peak_was_reached and before.source == "VmHWM" else "at least",
        source=after.source,
    )

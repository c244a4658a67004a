"""Energy of the processor, where the system has a counter that this user may read."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

JOULES_PER_UNIT = 1e-6
IDLE_SECONDS = 1.0
SYSTEM = Path("/sys/class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of the whole processor during the measurement, whoever used it.

    Args:
        joules: Counted during the measurement, J.
        seconds: Its duration, s.
        idle_watts: Power during one second before the network was loaded, W.
        source: Counters that were read.
    """

    joules: float
    seconds: float
    idle_watts: float
    source: str

    @property
    def joules_above_idle(self) -> float:
        """Energy beyond what the idle machine would have taken, J."""
        return self.joules - self.idle_watts * self.seconds


class EnergyReading(NamedTuple):
    """Counters at one time.

    Args:
        joules: Count and, where it is known, the count at which it starts from 0 again, by counter.
        seconds: Monotonic time of the reading, s.
    """

    joules: dict[str, tuple[float, float | None]]
    seconds: float


def read_energy(system: Path = SYSTEM) -> EnergyReading | None:
    """Read the counters of Linux: RAPL's of every processor package, or else those of hwmon.

    Args:
        system: Where the kernel shows its classes of devices.

    Returns:
        The counts; ``None`` if there is none that may be read.
    """
    paths = sorted(system.glob("powercap/intel-rapl:?/energy_uj")) or sorted(system.glob("hwmon/hwmon*/energy*_input"))
    counters: dict[str, tuple[float, float | None]] = {}
    for path in paths:
        count = _joules(path)
        if count is not None:
            counters[str(path)] = (count, _joules(path.with_name("max_energy_range_uj")))
    return EnergyReading(counters, time.perf_counter()) if counters else None


def read_idle_watts() -> float | None:
    """Power of the machine over the next second, W; ``None``, at once, without a counter."""
    before = read_energy()
    if before is None:
        return None
    time.sleep(IDLE_SECONDS)
    after = read_energy()
    return None if after is None else _between(before, after) / (after.seconds - before.seconds)


def energy_between(
    before: EnergyReading | None, after: EnergyReading | None, *, idle_watts: float | None
) -> Energy | None:
    """Energy between two readings; ``None`` where it could not be read.

    Example:
        >>> from exporters.profiling.runner.energy import EnergyReading, energy_between
        >>> before = EnergyReading({"package": (90.0, 100.0)}, 5.0)
        >>> after = EnergyReading({"package": (10.0, 100.0)}, 7.0)
        >>> energy_between(before, after, idle_watts=4.0)  # the counter started again at 100
        Energy(joules=20.0, seconds=2.0, idle_watts=4.0, source='package')
    """
    if before is None or after is None or idle_watts is None or before.joules.keys() != after.joules.keys():
        return None
    return Energy(
        joules=_between(before, after),
        seconds=after.seconds - before.seconds,
        idle_watts=idle_watts,
        source=", ".join(before.joules),
    )


def _between(before: EnergyReading, after: EnergyReading) -> float:
    joules = 0.0
    for name, (count, largest) in after.joules.items():
        rise = count - before.joules[name][0]
        joules += rise if rise >= 0 or largest is None else rise + largest
    return joules


def _joules(path: Path) -> float | None:
    try:
        return int(path.read_text(encoding="ascii")) * JOULES_PER_UNIT
    except (OSError, ValueError):
        return None

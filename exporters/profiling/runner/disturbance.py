"""How much processor time other processes took while something was measured."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# An idle Linux keeps a few hundredths of a core busy; one busy process keeps a whole one.
DISTURBED_CORES = 0.1
# The kernel counts in ticks of 10 ms: half a second tells a tenth of a core from nothing.
LEAST_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """Processor time that others took: processes, the kernel on its own account, other virtual machines.

    Args:
        share: Their part of the machine's processor time, from 0 to 1.
        busy_cores: The same as cores' worth of time: 1 is one core all the time.
        seconds: How long it was watched, s.
    """

    share: float
    busy_cores: float
    seconds: float

    @property
    def disturbed(self) -> bool:
        """Whether others took more than a tenth of one core: what was measured meanwhile is not the network alone."""
        return self.busy_cores > DISTURBED_CORES


class ProcessorTime(NamedTuple):
    """Processor time so far, s.

    Args:
        busy: Of all cores together, by anyone.
        total: Of all cores together, idle or not.
        own: Of this process.
    """

    busy: float
    total: float
    own: float


def read_processor_time() -> ProcessorTime | None:
    """Read what the kernel has counted; ``None`` on systems without ``/proc/stat``."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    ticks_per_second = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait irq softirq steal; what follows is counted in user and nice already.
    counted = [int(ticks) / ticks_per_second for ticks in line.split()[1:9]]
    idle = counted[3] + counted[4]
    return ProcessorTime(busy=sum(counted) - idle, total=sum(counted), own=time.process_time())


def disturbance_between(before: ProcessorTime | None, after: ProcessorTime | None) -> Disturbance | None:
    """What others took between two readings; ``None`` where it cannot be told, also for less than half a second.

    Example:
        >>> from exporters.profiling.runner.disturbance import ProcessorTime, disturbance_between
        >>> before = ProcessorTime(busy=10.0, total=40.0, own=1.0)
        >>> after = ProcessorTime(busy=13.0, total=44.0, own=2.5)  # 2 s of 2 cores
        >>> disturbance_between(before, after).share
        0.375
    """
    if before is None or after is None:
        return None
    cores = os.cpu_count() or 1
    total = after.total - before.total
    if total < LEAST_SECONDS * cores:
        return None
    others = max(0.0, (after.busy - before.busy) - (after.own - before.own))
    share = min(1.0, others / total)
    return Disturbance(share=share, busy_cores=share * cores, seconds=total / cores)

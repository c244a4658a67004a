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


def time_between(before: ProcessorTime | None, after: ProcessorTime | None) -> ProcessorTime | None:
    """Processor time between two readings; ``None`` if one is."""
    if before is None or after is None:
        return None
    return ProcessorTime(*(later - earlier for earlier, later in zip(before, after, strict=True)))


def disturbance_of(spent: ProcessorTime | None) -> Disturbance | None:
    """What others took of the time spent; ``None`` where it cannot be told, also for less than half a second.

    Example:
        >>> from exporters.profiling.runner.disturbance import ProcessorTime, disturbance_of
        >>> disturbance_of(ProcessorTime(busy=3.0, total=4.0, own=1.5)).share
        0.375
    """
    cores = os.cpu_count() or 1
    if spent is None or spent.total < LEAST_SECONDS * cores:
        return None
    share = min(1.0, max(0.0, spent.busy - spent.own) / spent.total)
    return Disturbance(share=share, busy_cores=share * cores, seconds=spent.total / cores)

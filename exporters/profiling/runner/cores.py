"""The processor cores that this process may run on."""

import os
import sys
from collections.abc import Iterable


def read_cores() -> tuple[int, ...]:
    """Numbers of the cores that this process may run on, rising.

    Systems that do not say (macOS) are taken to allow every core.
    """
    if sys.platform == "linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def can_pin() -> bool:
    """Whether this system lets a process choose its cores."""
    return sys.platform == "linux"


def pin(cores: Iterable[int]) -> tuple[int, ...]:
    """Let this process, and the threads that it starts from now on, run on ``cores`` only.

    Args:
        cores: Numbers of the cores.

    Returns:
        The cores in effect, read back.

    Raises:
        OSError: If the system does not have or does not grant them, or cannot pin at all.
    """
    if sys.platform != "linux":
        raise OSError(f"processes cannot be pinned to cores on {sys.platform}")
    os.sched_setaffinity(0, set(cores))
    return read_cores()

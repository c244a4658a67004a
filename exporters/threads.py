"""How many threads a session may use."""

import os
import sys


def available_threads() -> int:
    """Number of processors that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """The number of threads to use: ``threads``, or every available processor for ``None``.

    Raises:
        ValueError: If ``threads`` is not a whole number from 1 to the number of available processors.
    """
    limit = available_threads()
    if threads is None:
        return limit
    if type(threads) is not int or not 1 <= threads <= limit:
        raise ValueError(
            f"`threads` must be None or a whole number from 1 to {limit} (processors that this process may use), "
            f"got {threads!r}."
        )
    return threads

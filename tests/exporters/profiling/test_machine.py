import os
import platform
import sys

import numpy as np
import psutil
import pytest

from exporters.profiling.runner.machine import read_machine
from exporters.profiling.runner.memory import Memory, MemoryReading, memory_between, read_memory

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_fingerprint_names_what_the_process_runs_on():
    machine = read_machine()
    assert machine.versions == {"python": platform.python_version(), "numpy": np.__version__}
    assert machine.platform == platform.platform()
    assert machine.cpu


@linux_only
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert read_machine().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert read_machine().cores == len(allowed)


@linux_only
def test_reading_agrees_with_psutil():
    memory = read_memory()
    # The kernel batches its counters per processor, and reading takes some memory itself.
    assert memory.resident_bytes == pytest.approx(psutil.Process().memory_info().rss, abs=4 * 2**20)
    assert memory.peak_bytes >= memory.resident_bytes


def reading(resident_bytes, peak_bytes, source="VmHWM"):
    return MemoryReading(resident_bytes=resident_bytes, peak_bytes=peak_bytes, source=source)


@pytest.mark.parametrize(
    ("before", "after", "increase_bytes", "increase_is"),
    [
        (reading(40, 50), reading(60, 90), 50, "exact"),  # a new peak: 90 - 40
        (reading(40, 90), reading(60, 90), 20, "at least"),  # below the old peak: 60 - 40
        (reading(40, 90), reading(30, 90), 0, "at least"),
        (reading(50, 50, "ru_maxrss"), reading(90, 90, "ru_maxrss"), 40, "at least"),  # present size unknown before
    ],
)
def test_rise_is_exact_only_where_a_new_peak_was_reached(before, after, increase_bytes, increase_is):
    expected = Memory(
        peak_bytes=after.peak_bytes, increase_bytes=increase_bytes, increase_is=increase_is, source=after.source
    )
    assert memory_between(before, after) == expected

import os
import subprocess
import sys
import time

import pytest

from exporters.profiling import Disturbance
from exporters.profiling.runner.disturbance import (
    ProcessorTime,
    disturbance_of,
    read_processor_time,
    time_between,
)

CORES = os.cpu_count()


def times(busy, total, own):
    return ProcessorTime(busy=busy * CORES, total=total * CORES, own=own * CORES)


def test_share_is_what_is_busy_beyond_this_process():
    found = disturbance_of(time_between(times(10.0, 100.0, 3.0), times(13.0, 104.0, 4.0)))
    assert found == Disturbance(share=0.5, busy_cores=0.5 * CORES, seconds=4.0)  # (3 - 1) / 4


def test_a_process_that_counts_finer_than_the_kernel_leaves_no_negative_share():
    assert disturbance_of(times(1.0, 1.0, 1.01)).share == 0.0


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, times(1, 1, 1)), (times(1, 1, 1), None), (times(1.0, 10.0, 0.0), times(1.4, 10.49, 0.0))],
)
def test_nothing_is_said_without_readings_or_of_less_than_half_a_second(before, after):
    assert disturbance_of(time_between(before, after)) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_process_is_noticed_and_own_work_is_not_counted():
    before = read_processor_time()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            deadline = time.process_time() + 0.3
            while time.process_time() < deadline:
                sum(range(1000))
            time.sleep(1.0)
        finally:
            busy.kill()
    found = disturbance_of(time_between(before, read_processor_time()))
    own = time.process_time() - before.own
    assert found.disturbed
    # Whoever else is busy: all that is counted, and not this process.
    assert 0 < found.busy_cores <= CORES - own / found.seconds + 0.1

"""Whatever ends the process that measures, the device is left clean."""

import signal
import subprocess
import sys
import textwrap

import pytest

from exporters.profiling.devices import DeviceSettings


@pytest.fixture(params=["local", "ssh"])
def measuring(request, there, make_job, helpers):
    """A process that has a runner going on a device."""
    url = "local" if request.param == "local" else request.getfixturevalue("at_home").url
    settings = DeviceSettings(url=url, name="board", python=sys.executable, folder=str(there))
    job = make_job("import time; open('started', 'w').close(); time.sleep(600)")
    # Tests that were started in the background inherit that interrupts are ignored.
    code = f"""
        import signal
        from pathlib import Path
        from exporters.profiling.devices import DeviceSettings, open_device
        signal.signal(signal.SIGINT, signal.default_int_handler)
        open_device({settings!r}).run(Path({str(job)!r}), timeout_s=60)
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
    assert helpers.eventually(lambda: list(there.glob("*/started")), within_s=30)
    yield process
    process.kill()
    process.communicate()


def test_an_interrupt_at_the_terminal_cleans_up(measuring, there):
    measuring.send_signal(signal.SIGINT)
    _, words = measuring.communicate(timeout=20)
    assert not list(there.iterdir())
    assert words.strip().endswith(b"KeyboardInterrupt")


def test_a_process_that_is_killed_leaves_nothing(measuring, there, helpers):
    measuring.kill()
    assert helpers.eventually(lambda: not list(there.iterdir()))

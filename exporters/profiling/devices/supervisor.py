"""Keeps one job on a device: makes its folder, starts the runner in it, and removes both, whatever happens.

It is sent as text and run by ``python3 -c``, so that it is there before the first file and needs nothing but Python.
Whoever sent it writes one word a line, ``run`` or ``beat``; it answers with one JSON object a line. The end of its
input, silence, its time limit and signals that ask it to end are all the same to it: the runner's processes are killed
and the folder is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

LOG_BYTES = 4000
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
REMOVALS, BETWEEN_REMOVALS_S = 20, 0.1
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Make the folder, say what is here, serve until the end, clean up."""
    options = json.loads(sys.argv[1])
    deadline = time.monotonic() + options["limit_s"]
    wake_up = catch_signals()
    try:
        folder = tempfile.mkdtemp(prefix="lightning-kd-", dir=options["folder"])
    except OSError as error:
        say(event="refused", message=str(error))
        return
    supervisor = Supervisor(folder, wake_up)
    try:
        say(event="hello", folder=folder, **describe(folder, options["modules"]))
        supervisor.serve(deadline, options["silence_s"])
    finally:
        supervisor.kill()
        say(event="removed", left=remove(folder))


def catch_signals() -> int:
    """Descriptor on which the number of every signal that was caught can be read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (*ENDING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading


def describe(folder: str, modules: list[str]) -> dict[str, Any]:
    """What whoever sent this must know before it sends a job: versions, room, and which ``modules`` are missing."""
    return {
        "free_bytes": shutil.disk_usage(folder).free,
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "missing": [name for name in modules if importlib.util.find_spec(name) is None],
    }


def die_with_supervisor() -> None:
    """Let the kernel kill this process if the supervisor is killed; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def say(**message: Any) -> None:
    """Write one line, if anyone is still there to read it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


def remove(folder: str) -> str:
    """Remove the folder while others may still write to it; what stays and why, or nothing."""
    left = ""
    for _ in range(REMOVALS):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return ""
        except OSError as error:
            left = str(error)
            time.sleep(BETWEEN_REMOVALS_S)
        else:
            return ""
    return left


class Supervisor:
    """The runner, its last words, and what is listened to."""

    def __init__(self, folder: str, wake_up: int) -> None:
        self.folder = folder
        self.runner: subprocess.Popen[bytes] | None = None
        self.log = b""
        self.words = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, self.listen)
        self.selector.register(wake_up, selectors.EVENT_READ, self.notice)

    def serve(self, deadline: float, silence_s: float) -> None:
        """Handle what comes until the input ends, falls silent, or time is over."""
        heard = time.monotonic()
        while True:
            wait_s = min(deadline, heard + silence_s) - time.monotonic()
            if wait_s <= 0:
                return
            for key, _ in self.selector.select(wait_s):
                content = os.read(key.fd, 65536)
                if not key.data(content):
                    return
                if key.fd == 0:
                    heard = time.monotonic()

    def listen(self, content: bytes) -> bool:
        """Words from whoever sent this; false at their end."""
        *lines, self.words = (self.words + content).split(b"\n")
        if b"run" in lines:
            self.start()
        return bool(content)

    def notice(self, signals: bytes) -> bool:
        """Signals; false if one asks to end."""
        if self.runner is not None and self.runner.poll() is not None:
            code = self.kill()
            say(event="ended", exit_code=code, log=self.log.decode("utf-8", "replace"))
        return not set(signals) & {int(number) for number in ENDING}

    def keep(self, content: bytes) -> bool:
        """Output of the runner, of which the end is kept."""
        self.log = (self.log + content)[-LOG_BYTES:]
        if not content:
            self.selector.unregister(self.output)
        return True

    def start(self) -> None:
        """Start the runner as the leader of a group of processes, with its temporary files in the folder."""
        self.output, writing = os.pipe()
        os.set_blocking(self.output, False)
        self.runner = subprocess.Popen(
            [sys.executable, "-m", "runner"],
            cwd=self.folder,
            env=dict(os.environ, TMPDIR=self.folder),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_supervisor,  # noqa: PLW1509 - there are no threads here
        )
        os.close(writing)
        self.selector.register(self.output, selectors.EVENT_READ, self.keep)

    def kill(self) -> int:
        """End every process of the runner's group, take its last words, and return its exit code."""
        runner, self.runner = self.runner, None
        if runner is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(runner.pid, signal.SIGKILL)
        code = runner.wait()
        with contextlib.suppress(BlockingIOError, KeyError):
            while self.selector.get_key(self.output):
                self.keep(os.read(self.output, 65536))
        return code


if __name__ == "__main__":
    main()

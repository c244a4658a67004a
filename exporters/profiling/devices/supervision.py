"""This side of the supervisor, which keeps a job on a device."""

import asyncio
import contextlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporters.errors import DeviceError
from exporters.profiling.devices.link import Link, Process
from exporters.profiling.devices.settings import DeviceSettings

SUPERVISOR = Path(__file__).with_name("supervisor.py")
BEAT_S, SILENCE_S = 5.0, 30.0
"""How often the device hears from here, and after how long without that it ends the job."""

CLEAN_UP_S = 10.0
LAST_WORDS_BYTES = 2000


class Supervision:
    """Starts the supervisor, speaks with it, and ends it.

    Args:
        link: Open way to the device.
        settings: The device.
    """

    def __init__(self, link: Link, settings: DeviceSettings) -> None:
        self._link = link
        self._settings = settings
        self._process: Process | None = None
        self._beats: asyncio.Task[None] | None = None
        self._folder = ""

    async def start(self, modules: Sequence[str], *, limit_s: float) -> dict[str, Any]:
        """Start it, which makes the job's folder.

        Args:
            modules: Importable names to look for.
            limit_s: Time after which it ends by itself, s.

        Returns:
            What it found: ``folder``, ``free_bytes``, ``python``, ``executable`` and ``missing``.

        Raises:
            DeviceError: If there is no such Python or folder.
        """
        code = SUPERVISOR.read_bytes()
        options = {
            "folder": self._settings.folder_there,
            "limit_s": limit_s,
            "modules": list(modules),
            "silence_s": SILENCE_S,
        }
        # By the input, because a command line that long is refused by older versions of adb.
        reader = f"import sys; exec(sys.stdin.buffer.read({len(code)}))"
        self._process = await self._link.start([self._settings.python_there, "-c", reader, json.dumps(options)])
        with contextlib.suppress(*self._link.errors):  # if there is no such Python; then its output ends at once
            self._process.stdin.write(code)
            await self._process.stdin.drain()
        here = await self._hear("hello")
        self._folder = here["folder"]
        self._beats = asyncio.create_task(self._beat(self._process))
        return here

    async def run(self) -> tuple[int, str]:
        """Run the runner; its exit code, negative for a signal, and the end of what it printed."""
        if self._process is None:
            raise DeviceError("the supervisor must be started before its runner.")
        self._process.stdin.write(b"run\n")
        await self._process.stdin.drain()
        ended = await self._hear("ended")
        return ended["exit_code"], ended["log"].strip() or "it printed nothing"

    async def end(self) -> str:
        """End the runner, remove the folder, and wait for both; a sentence about what may be left, or nothing."""
        if self._beats is not None:
            self._beats.cancel()
        if self._process is None:
            return ""
        left: str | None = None
        with contextlib.suppress(*self._link.errors):
            async with asyncio.timeout(CLEAN_UP_S):
                self._process.stdin.write_eof()
                while line := await self._process.stdout.readline():
                    left = (_message(line) or {}).get("left", left)
                code = await self._process.wait()
                if self._folder and left is None and code is not None:
                    left = await self._remove()
        if not self._folder or left == "":
            return ""
        if left is None:
            return f"The device removes {self._folder} by itself within {SILENCE_S:g} s, but could not confirm it."
        return f"What is left in {self._folder} on the device must be removed by hand: {left}."

    async def _remove(self) -> str:
        """Remove the folder of a supervisor that was killed; on Linux its runner died with it."""
        code = "import shutil, sys; shutil.rmtree(sys.argv[1])"
        process = await self._link.start([self._settings.python_there, "-c", code, self._folder])
        process.stdin.write_eof()
        return "what removes it was killed" if await process.wait() else ""

    async def _beat(self, process: Process) -> None:
        with contextlib.suppress(*self._link.errors):
            while True:
                process.stdin.write(b"beat\n")
                await process.stdin.drain()
                await asyncio.sleep(BEAT_S)

    async def _hear(self, event: str) -> dict[str, Any]:
        if self._process is None:
            raise DeviceError("the supervisor must be started before it is heard.")
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise await self._ended_early(self._process)
        message = _message(line)
        if message is None:
            raise DeviceError(
                f"{self._settings.name}: the login shell must print nothing of its own, got {line[:80]!r}; make its "
                f"start-up files quiet for sessions without a terminal."
            )
        if message["event"] == "refused":
            raise DeviceError(f"{self._settings.name}: `folder` must be one to write in, got {message['message']}.")
        if message["event"] != event:
            raise DeviceError(f"{self._settings.name}: the job was ended on the device, by a signal or its time limit.")
        return message

    async def _ended_early(self, process: Process) -> Exception:
        words = (await process.stderr.read(LAST_WORDS_BYTES)).decode("utf-8", "replace").strip()
        code = await process.wait()
        if code is None:
            return ConnectionError("the device closed it")
        words = words or "it printed nothing"
        if self._folder:
            return DeviceError(f"{self._settings.name}: what keeps the job ended with exit code {code}: {words}.")
        python = shlex.quote(self._settings.python_there)
        android = (
            " Android brings none; docs/devices.md says what that means."
            if self._settings.address.scheme == "adb"
            else ""
        )
        return DeviceError(
            f"{self._settings.name}: `python` must be a Python that runs there, got {python}, which ended with exit "
            f"code {code}: {words}; name another in the inventory.{android}"
        )


def _message(line: bytes) -> dict[str, Any] | None:
    """What the supervisor says in a line; ``None`` if the line is not of its making."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "event" in message else None

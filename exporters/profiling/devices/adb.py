"""A device over adb: a phone or board with Android and a Python that adb's user can run."""

import asyncio
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from exporters.errors import DeviceError
from exporters.profiling.devices.link import Process, process_of
from exporters.profiling.devices.settings import Address

LAST_WORDS_BYTES = 2000


class AdbLink:
    """The way to one device.

    Args:
        adb: Path of the program.
        serial: Which device.
    """

    errors = (OSError,)

    def __init__(self, adb: str, serial: str) -> None:
        self._command = (adb, "-s", serial)

    async def start(self, arguments: Sequence[str]) -> Process:
        """Start a process; the device's shell sees quoted words only."""
        return await process_of([*self._command, "shell", "-T", shlex.join(arguments)])

    async def send(self, source: Path, folder: str) -> None:
        """Copy what is in ``source``."""
        await self._finish("push", *(str(path) for path in sorted(source.iterdir())), folder)

    async def fetch(self, path: str, target: Path) -> None:
        """Copy one file back."""
        await self._finish("pull", path, str(target))

    async def check(self) -> None:
        """Ask adb whether the device is there and allows debugging.

        Raises:
            DeviceError: If not, with adb's own words.
        """
        await self._finish("get-state")

    async def _finish(self, *arguments: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            words, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            said = words[-LAST_WORDS_BYTES:].decode("utf-8", "replace").strip()
            raise DeviceError(f"`{shlex.join(['adb', *self._command[1:], arguments[0]])}` must succeed, got: {said}")


@asynccontextmanager
async def open_adb(address: Address) -> AsyncIterator[AdbLink]:
    """Find adb and the device.

    Args:
        address: Its serial number is the host.

    Yields:
        The way to it.

    Raises:
        DeviceError: If there is no adb, or no such device.
    """
    adb = shutil.which("adb")
    if adb is None:
        raise DeviceError(f"adb://{address.host}: adb must be on the PATH, got none; install Android's platform tools.")
    link = AdbLink(adb, address.host)
    await link.check()
    yield link

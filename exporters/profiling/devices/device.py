"""Places where a job can run."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from exporters.errors import DeviceError, InventoryError
from exporters.profiling.devices.inventory import read_inventory
from exporters.profiling.devices.session import run_job
from exporters.profiling.devices.settings import FORMS, DeviceSettings
from exporters.runtimes import import_runtime

OPENERS: Mapping[str, tuple[str, str]] = {
    "adb": ("exporters.profiling.devices.adb", "open_adb"),
    "local": ("exporters.profiling.devices.local", "open_local"),
    "ssh": ("exporters.profiling.devices.ssh", "open_ssh"),
}
"""Module and name of what opens the link, by scheme."""

DEFAULT_TIMEOUT_S = 600.0


@runtime_checkable
class Device(Protocol):
    """A place where a job can run."""

    @property
    def settings(self) -> DeviceSettings:
        """What is known of it."""

    def run(self, folder: Path, *, timeout_s: float) -> None:
        """Run the job in ``folder`` there and bring ``result.json`` back into it; nothing stays there.

        Args:
            folder: Holds ``runner/``, which ``python -m runner`` runs with the copy of the folder as its own.
            timeout_s: Longest time, s; cleaning up may take some seconds more.

        Raises:
            DeviceError: If the device cannot be reached, or does not finish the job (also an `OSError`).
            DeviceTimeoutError: If time is over (also a `TimeoutError`).
            MissingRuntimeError: If it lacks a package (also an `ImportError`); names the command that installs it.
        """

    def interrupt(self) -> None:
        """End every job there, from another thread, and take no more; `run` cleans up and raises `DeviceError`."""


class LinkedDevice:
    """A device behind a link: this machine, SSH or adb.

    Args:
        settings: What is known of it.
    """

    def __init__(self, settings: DeviceSettings) -> None:
        self.settings = settings
        self._interrupted = False
        self._runs: set[_Run] = set()

    def run(self, folder: Path, *, timeout_s: float) -> None:
        """Run the job in ``folder`` there; see `Device`."""
        scheme = self.settings.address.scheme
        opener = partial(import_runtime(OPENERS, scheme, extra="devices"), self.settings.address)
        run = _Run(partial(run_job, opener, self.settings, folder, timeout_s=timeout_s))
        self._runs.add(run)
        if self._interrupted:
            run.cancel()
        # In a thread of its own, because the caller's may have an event loop that runs already, as notebooks do.
        with ThreadPoolExecutor(1, thread_name_prefix=self.settings.name) as thread:
            future = thread.submit(lambda: asyncio.run(run.main()))
            try:
                future.result()
            except asyncio.CancelledError as error:
                raise DeviceError(f"{self.settings.name}: the job was interrupted.") from error
            except KeyboardInterrupt:
                run.cancel()
                raise
            finally:
                self._runs.discard(run)

    def interrupt(self) -> None:
        """End every job there, from another thread, and take no more."""
        self._interrupted = True
        for run in tuple(self._runs):
            run.cancel()


class _Run:
    """A job in an event loop that another thread can cancel, once, at any time.

    Args:
        job: What to do.
    """

    def __init__(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._job = job
        self._lock = threading.Lock()
        self._cancelled = False
        self._cancel: Callable[[], object] | None = None

    async def main(self) -> None:
        task = asyncio.ensure_future(self._job())
        loop = asyncio.get_running_loop()
        with self._lock:
            self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
            if self._cancelled:
                task.cancel()
        try:
            await task
        finally:
            with self._lock:
                self._cancel = None

    def cancel(self) -> None:
        with self._lock:
            if self._cancel is not None and not self._cancelled:
                self._cancel()
            self._cancelled = True


def open_device(device: str | DeviceSettings, *, inventory: str | Path | None = None) -> Device:
    """Find out what a device is; it is not connected to before it runs something.

    Args:
        device: ``"local"``, ``"ssh://user@host:port"``, ``"adb://serial"``, a name in the inventory, or settings.
        inventory: The file that names devices; see `read_inventory`.

    Returns:
        The device.

    Raises:
        InventoryError: If it is none of these, or the inventory is wrong (also a `ValueError`).

    Example:
        >>> open_device("ssh://pi@raspberrypi.local:2222").settings.address.port
        2222
        >>> open_device("ftp://pi")
        Traceback (most recent call last):
        exporters.errors.InventoryError: `url` must begin with ssh:// or adb://, or be 'local', got 'ftp://pi'.
    """
    if isinstance(device, DeviceSettings):
        return LinkedDevice(device)
    if device == "local" or "://" in device:
        return LinkedDevice(DeviceSettings(url=device))
    if inventory is None:
        raise InventoryError(f"`device` must be {FORMS}, got {device!r} without an inventory; give one to read.")
    devices = read_inventory(inventory)
    if device not in devices:
        raise InventoryError(f"`device` must be one of {', '.join(devices)} of {inventory}, got {device!r}.")
    return LinkedDevice(devices[device])

"""One job on one device, over any link: send it, run it, bring its result back, and see that nothing is left there."""

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from exporters.errors import DeviceError, DeviceTimeoutError, ExportError, MissingRuntimeError
from exporters.profiling.devices.link import Link, Opener, reason
from exporters.profiling.devices.requirements import OLDEST_PYTHON, requirements_of
from exporters.profiling.devices.settings import DeviceSettings
from exporters.profiling.devices.supervision import CLEAN_UP_S, Supervision
from exporters.profiling.runner.job import RESULT_FILE

REPORTED = 3
"""Exit code of a runner that wrote into its result what went wrong."""

ROOM = 2
SPARE_BYTES = 16 << 20
"""Beside the files: as much again for what a runtime caches, and room for the result."""


async def run_job(opener: Opener, settings: DeviceSettings, folder: Path, *, timeout_s: float) -> None:
    """Run the job in ``folder`` on a device.

    Args:
        opener: Opens the link to it.
        settings: What is known of it.
        folder: Holds the job and ``runner/``; gets ``result.json``.
        timeout_s: Longest time from connecting to the result, s; cleaning up may take 10 s more.

    Raises:
        DeviceError: If it cannot be reached, or does not finish the job.
        DeviceTimeoutError: If time is over.
        MissingRuntimeError: If it lacks a package that the artifact needs.
    """
    job = _Job(settings=settings, folder=folder, timeout_s=timeout_s)
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            await job.run(opener)
    except ExportError as error:
        if job.left:
            raise DeviceError(f"{error} {job.left}") from error
        raise
    except OSError as error:
        if limit.expired():
            raise DeviceTimeoutError(
                f"{settings.name}: the job must end within `timeout_s`, got {timeout_s:g} s, which ended while "
                f"{job.stage}; give it longer with --timeout or in the inventory. {job.left}".rstrip()
            ) from error
        raise DeviceError(
            f"{settings.name}: the connection must last until the result is here, but it ended while {job.stage}: "
            f"{reason(error)}. {job.left}".rstrip()
        ) from error
    if job.left:
        raise DeviceError(f"{settings.name}: {job.left}")


@dataclass(kw_only=True)
class _Job:
    """What is known of a job while it runs.

    Args:
        settings: The device.
        folder: The job's folder here.
        timeout_s: Longest time, s.
        stage: What is being done.
        left: What may be left on the device, in a sentence; empty if it said that all is gone.
    """

    settings: DeviceSettings
    folder: Path
    timeout_s: float
    stage: str = "connecting"
    left: str = ""

    async def run(self, opener: Opener) -> None:
        requirements = requirements_of(self.folder)
        async with opener() as link:
            supervision = Supervision(link, self.settings)
            try:
                self.stage = "starting Python there"
                here = await supervision.start(list(requirements.packages), limit_s=self.timeout_s + CLEAN_UP_S)
                self._check_python(here)
                if here["missing"]:
                    raise MissingRuntimeError(
                        f"{self.settings.name}: {here['executable']} must be able to import "
                        f"{', '.join(requirements.packages)}, got no {', '.join(here['missing'])}; run there: "
                        f"{requirements.command(here['executable'], here['missing'])}"
                    )
                self._check_room(here)
                await self._run_there(link, supervision, here["folder"])
            finally:
                self.left = await supervision.end()

    async def _run_there(self, link: Link, supervision: Supervision, there: str) -> None:
        self.stage = "copying the job there"
        await link.send(self.folder, there)
        self.stage = "running the job"
        code, log = await supervision.run()
        if code not in (0, REPORTED):
            raise DeviceError(f"{self.settings.name}: the runner must end with exit code 0, got {_code(code)}: {log}")
        self.stage = "bringing the result back"
        arriving = self.folder / f"{RESULT_FILE}.arriving"
        try:
            await link.fetch(str(PurePosixPath(there, RESULT_FILE)), arriving)
            arriving.replace(self.folder / RESULT_FILE)
        finally:
            arriving.unlink(missing_ok=True)

    def _check_python(self, here: dict[str, Any]) -> None:
        if tuple(here["python"]) < OLDEST_PYTHON:
            raise DeviceError(
                f"{self.settings.name}: `python` must be Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, got "
                f"{here['executable']} of version {'.'.join(map(str, here['python']))}; name another in the inventory."
            )

    def _check_room(self, here: dict[str, Any]) -> None:
        files = [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]
        needed_bytes = ROOM * sum(file.stat().st_size for file in files) + SPARE_BYTES
        if here["free_bytes"] < needed_bytes:
            raise DeviceError(
                f"{self.settings.name}: `folder` must have {_mebibytes(needed_bytes)} free for this job, got "
                f"{_mebibytes(here['free_bytes'])} where {here['folder']} is; make room, or name another `folder` in "
                f"the inventory."
            )


def _code(code: int) -> str:
    if code >= 0:
        return str(code)
    hint = " (as when memory runs out)" if -code == signal.SIGKILL else ""
    return f"signal {-code}{hint}"


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"

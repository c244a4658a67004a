"""This machine as a device: a fresh process in a copy of the job."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from exporters.profiling.devices.link import Process, explained, process_of
from exporters.profiling.devices.settings import Address

CHUNK_BYTES = 8 << 20


class LocalLink:
    """The way to this machine."""

    errors = (OSError,)

    async def start(self, arguments: Sequence[str]) -> Process:
        """Start a process that an interrupt at the terminal does not reach."""
        return await process_of(arguments)

    async def send(self, source: Path, folder: str) -> None:
        """Copy what is in ``source``."""
        async with explained(f"`folder` must take the job, got {folder}", OSError):
            for path in sorted(source.rglob("*")):
                target = Path(folder, path.relative_to(source))
                if path.is_dir():
                    target.mkdir()
                else:
                    await _copy(path, target)

    async def fetch(self, path: str, target: Path) -> None:
        """Copy one file back."""
        async with explained(f"the runner must write {Path(path).name}", FileNotFoundError):
            await _copy(Path(path), target)


@asynccontextmanager
async def open_local(address: Address) -> AsyncIterator[LocalLink]:  # noqa: ARG001 - as for every scheme
    """Open the way to this machine, which takes nothing."""
    yield LocalLink()


async def _copy(source: Path, target: Path) -> None:
    # Not in a thread, which could not be stopped and would go on writing into a folder that was removed.
    with source.open("rb") as reading, target.open("xb") as writing:
        while chunk := reading.read(CHUNK_BYTES):
            writing.write(chunk)
            await asyncio.sleep(0)

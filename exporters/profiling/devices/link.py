"""What a way to a device can do: start one process there, and copy files."""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from exporters.errors import DeviceError


class Writer(Protocol):
    """Standard input of a process."""

    def write(self, content: bytes, /) -> None:
        """Queue bytes."""

    async def drain(self) -> None:
        """Wait until they are on their way."""

    def write_eof(self) -> None:
        """End the input."""


class Reader(Protocol):
    """Standard output or error of a process."""

    async def readline(self) -> bytes:
        """One line, or what came before the end; empty at the end."""

    async def read(self, size_bytes: int, /) -> bytes:
        """At most so many bytes; empty at the end."""


class Process(NamedTuple):
    """A process on the device.

    Args:
        stdin: Its input.
        stdout: Its output.
        stderr: Its errors.
        wait: Waits for its end and returns its exit code; ``None`` where the connection ended first.
    """

    stdin: Writer
    stdout: Reader
    stderr: Reader
    wait: Callable[[], Awaitable[int | None]]


class Link(Protocol):
    """An open way to a device."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What it raises when it breaks; `OSError` among them."""

    async def start(self, arguments: Sequence[str]) -> Process:
        """Start a process in the user's own folder there."""

    async def send(self, source: Path, folder: str) -> None:
        """Copy what is in the folder ``source`` here into ``folder`` there."""

    async def fetch(self, path: str, target: Path) -> None:
        """Copy the file ``path`` there to ``target`` here."""


Opener = Callable[[], AbstractAsyncContextManager[Link]]


def reason(error: Exception) -> str:
    """What an error says, or its name if it says nothing."""
    return str(error) or type(error).__name__


@asynccontextmanager
async def explained(what: str, *kinds: type[Exception]) -> AsyncIterator[None]:
    """Turn an error of one of the ``kinds`` inside it into a `DeviceError` that says ``what`` could not be done."""
    try:
        yield
    except kinds as error:
        raise DeviceError(f"{what}: {reason(error)}") from error


async def process_of(arguments: Sequence[str]) -> Process:
    """Start a process here, out of reach of an interrupt at the terminal.

    Raises:
        DeviceError: If there is no such program.
    """
    async with explained(f"{arguments[0]!r} must be a program that runs here, but", OSError):
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise DeviceError(f"{arguments[0]!r} must have an input and outputs.")
    return Process(process.stdin, process.stdout, process.stderr, process.wait)

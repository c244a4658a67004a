"""Where the files of a cache are: a folder, or anything that fsspec reaches."""

import contextlib
import os
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lightning_kd.errors import StorageError

UNFINISHED = ".partial"
_SWEPT_AT_MOST = 100


class Storage:
    """The files below one folder, each of which appears whole or not at all.

    In a local folder a file is written beside its place, flushed to the disk and renamed. In an object store it is
    uploaded in one piece, and appears when the upload ends.

    Args:
        url: A path, or a URL that fsspec understands, such as ``"s3://bucket/cache"``; packages such as ``s3fs`` are
            installed apart.
        copies: Folder for local copies of what is read from elsewhere; of no use for a local ``url``.

    Raises:
        StorageError: If fsspec does not know the protocol, or its package is not installed.
    """

    def __init__(self, url: str | Path, *, copies: Path | None = None) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(str(url))
        except (ImportError, ValueError) as error:
            what = "a folder or a URL that fsspec understands"
            raise StorageError(f"`path` must be {what}, got {url}: {error}.") from error
        self.url = str(url)
        self.is_local = isinstance(self._files, LocalFileSystem)
        self.copies = copies

    def place(self, name: str) -> str:
        """Full path of a file, for messages and for fsspec."""
        return str(PurePosixPath(self._root) / name)

    def sizes(self, folder: str) -> dict[str, int]:
        """Size in bytes of each finished file in a folder, by name; empty if there is no such folder."""
        self._files.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self._files.ls(self.place(folder), detail=True)
        except FileNotFoundError:
            return {}
        files = [entry for entry in entries if entry["type"] != "directory"]
        sizes = {PurePosixPath(file["name"]).name: int(file["size"] or 0) for file in files}
        return {name: size for name, size in sizes.items() if not name.endswith(UNFINISHED)}

    def read(self, name: str) -> bytes | None:
        """The content of a file; ``None`` if there is none.

        Raises:
            StorageError: If it cannot be read.
        """
        try:
            content: bytes = self._files.cat_file(self.place(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self.place(name)} cannot be read: {error}.") from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file; what is there is replaced.

        Raises:
            StorageError: If it cannot be written, on a full disk for example; then it is as it was before.
        """
        place = self.place(name)
        try:
            if self.is_local:
                _write_whole(Path(place), content)
            else:
                self._files.pipe_file(place, content)
        except OSError as error:
            raise StorageError(
                f"{place} cannot be written ({len(content)} bytes): {error}. Make room, or see who may write "
                "there, and run the same command again: finished shards stay, and only the others are written."
            ) from error

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._files.rm_file(self.place(name))

    def sweep(self, folder: str, prefix: str) -> None:
        """Delete what killed processes left of files whose names start with ``prefix``.

        What a living process is writing goes too; it notices and writes the file again.
        """
        if self.is_local:
            for leftover in Path(self.place(folder)).glob(f".{prefix}*{UNFINISHED}"):
                leftover.unlink(missing_ok=True)

    def local_copy(self, name: str) -> Path:
        """A local file with the content of a file: itself, or a copy that is fetched if it is not there yet.

        Raises:
            StorageError: If there is no such file, or it cannot be fetched.
        """
        if self.is_local:
            return Path(self.place(name))
        if self.copies is None:
            raise StorageError(f"{self.url} is no local folder: pass copies=, a folder for local copies of its shards.")
        copy = self.copies / name
        if not copy.exists():
            content = self.read(name)
            if content is None:
                raise StorageError(f"{self.place(name)} is missing: run the command that writes the cache again.")
            try:
                _write_whole(copy, content)
            except OSError as error:
                raise StorageError(f"{copy} cannot be written ({len(content)} bytes): {error}. Make room.") from error
        return copy


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside ``path``, flush to the disk and rename, so that a kill or a power cut leaves no half file there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    for _ in range(_SWEPT_AT_MOST):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                unfinished.replace(path)
                return
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    raise OSError(f"other processes deleted {unfinished} {_SWEPT_AT_MOST} times")

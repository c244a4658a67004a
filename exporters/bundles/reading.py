"""Reads a bundle and checks every file of it; nothing in it is executed or unpickled."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from exporters.artifact import Artifact, sha256_of
from exporters.bundles.card import ModelCard
from exporters.errors import ArtifactError, PathError

SCHEMA_VERSION = 1
INDEX, SUMS = "bundle.json", "SHA256SUMS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A network for several runtimes.

    Args:
        path: The folder or archive.
        artifacts: Artifacts by format and precision, as in ``"openvino-int8"``.
        card: What the author says of it.
        sha256: Hash of the list of all files' hashes, in hexadecimal. It vouches for the whole bundle, if it is known
            from elsewhere: whoever changes a file can change the list, too.
    """

    path: Path
    artifacts: Mapping[str, Artifact]
    card: ModelCard
    sha256: str

    def at(self, path: Path) -> Self:
        """The same bundle at another place."""
        moved = {name: replace(each, path=path / name / each.path.name) for name, each in self.artifacts.items()}
        return replace(self, path=path, artifacts=moved)


def open_bundle(path: Path | str, *, folder: Path | str | None = None) -> Bundle:
    """Check a bundle and list its artifacts, which `exporters.load` runs.

    Args:
        path: A bundle's folder, or an archive.
        folder: Where an archive is unpacked: a folder that does not exist yet. Left out for a folder.

    Returns:
        The bundle, at the folder.

    Raises:
        ArtifactError: If a file is missing, was changed or added, or this is no bundle of this schema version.
        PathError: If ``folder`` is missing for an archive, given for a folder, or exists.
    """
    path = Path(path)
    if path.is_dir():
        if folder is not None:
            raise PathError(f"`folder` must be left out for a bundle that is a folder, got {folder}.")
        return read_folder(path)
    if folder is None:
        raise PathError(f"`folder` must say where {path.name} is unpacked, got None.")
    target = Path(folder)
    _unpack(path, target)
    return read_folder(target)


def read_folder(folder: Path) -> Bundle:
    """Check a bundle's folder; `open_bundle` says what is raised."""
    sums = _check_files(folder)
    content = _load(folder / INDEX)
    try:
        paths = {name: folder / entry["path"] for name, entry in content["artifacts"].items()}
        card = ModelCard(**content["card"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"`path` must be a bundle written by exporters.bundle, got {folder}.") from error
    artifacts = {name: Artifact.read(path) for name, path in paths.items()}
    return Bundle(path=folder, artifacts=artifacts, card=card, sha256=hashlib.sha256(sums).hexdigest())


def _check_files(folder: Path) -> bytes:
    file = folder / SUMS
    if not file.is_file():
        raise ArtifactError(f"`path` must be a bundle with {SUMS} in it, got {folder}.")
    sums = file.read_bytes()
    wanted: dict[str, str] = {}
    for line in sums.decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest
    found = {
        each.relative_to(folder).as_posix()
        for each in folder.rglob("*")
        if (each.is_file() or each.is_symlink()) and each != file
    }
    for name in sorted(found ^ wanted.keys()):
        what = "was added to" if name in found else "is missing from"
        raise ArtifactError(f"the bundle must hold what {SUMS} lists, but {name} {what} {folder}.")
    for name, digest in wanted.items():
        if (folder / name).is_symlink() or sha256_of(folder / name) != digest:
            raise ArtifactError(
                f"`{name}` must be as {SUMS} says, got other content in {folder}; copy the bundle again."
            )
    return sums


def _load(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"`path` must be a bundle with a readable {INDEX}, got {file}: {error}.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(f"`schema_version` of {file} must be {SCHEMA_VERSION}, got {version!r}; bundle it again.")
    loaded: dict[str, Any] = content
    return loaded


def _unpack(archive: Path, folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise PathError(f"`folder` must be new, in a folder that exists, got {folder}: {error.strerror}.") from error
    try:
        with zipfile.ZipFile(archive) as packed:
            # It makes no file outside of the folder: absolute names and ".." are cut.
            packed.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"`path` must be a bundle's folder or archive, got {archive}: {error}.") from error

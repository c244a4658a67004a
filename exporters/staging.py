"""Files appear complete or not at all: written in a folder beside the target, moved into place at the end."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from exporters.errors import PathError


@contextmanager
def staged(folder: Path, *, last: str) -> Iterator[Path]:
    """Yield an empty folder whose content replaces that of ``folder`` name by name if the block succeeds.

    Files of the same names are replaced; if a move fails, all of them are put back. Whatever ends the block early, an
    interrupt included, leaves ``folder`` as it was.

    Args:
        folder: Existing folder for the results.
        last: Name of the file that is moved last: it vouches for the others.

    Yields:
        A temporary folder on the same file system.

    Raises:
        PathError: If ``folder`` does not exist or cannot be written to; raised before the block runs.
    """
    if not folder.is_dir():
        raise PathError(f"`path` must lie in an existing folder, got {folder}; create it first.")
    try:
        stage = tempfile.TemporaryDirectory(dir=folder, prefix=".export-")
    except OSError as error:
        raise PathError(f"`path` must lie in a folder that can be written to, got {folder}: {error}.") from error
    with stage as name:
        work, replaced = Path(name, "new"), Path(name, "replaced")
        work.mkdir()
        replaced.mkdir()
        yield work
        names = sorted((path.name for path in work.iterdir()), key=lambda name: (name == last, name))
        try:
            _publish(names, work, folder, replaced)
        except OSError as error:
            raise PathError(f"`path` must be replaceable, got {folder}: {error}.") from error


def _publish(names: list[str], work: Path, folder: Path, replaced: Path) -> None:
    with ExitStack() as undo:
        # The old voucher goes first, so that no reader can pair it with a new file.
        for name in reversed(names):
            if os.path.lexists(folder / name):
                (folder / name).rename(replaced / name)
                undo.callback((replaced / name).rename, folder / name)
        for name in names:
            (work / name).rename(folder / name)
            undo.callback((folder / name).rename, work / name)
        undo.pop_all()

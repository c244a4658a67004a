"""The whole job: one fresh process per cold start, and one per sitting of the measurement."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .checking import check_files
from .failures import JobError
from .job import CACHE_FOLDER, Job
from .runtimes import find_runtime
from .sittings import join_sittings

CHILD_FILE = "child.json"
LAST_CHARACTERS = 400


def run_job(folder: Path) -> dict[str, Any]:
    """Do what ``job.json`` says, one process after the other.

    Args:
        folder: Folder of the job.

    Returns:
        The fields of a `Profile` but for the device.

    Raises:
        JobError: If the job cannot be done.
    """
    try:
        job = Job.read(folder)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise JobError("failed", f"job.json must be a job of this runner, but {error!r}.") from error
    check_files(folder, job.files)
    runtime = find_runtime(job.format)
    runtime.prepare(folder / job.file)
    starts = [_child(folder, "cold") for _ in range(job.cold_starts)]
    if job.cold_starts and runtime.HAS_CACHE:
        (folder / CACHE_FOLDER).mkdir(exist_ok=True)
        filled = _child(folder, "cold", "--cache", CACHE_FOLDER)
        if filled["cached"]:
            raise JobError("failed", "the runtime's cache must be empty at first, but it was not.")
        starts += [_child(folder, "cold", "--cache", CACHE_FOLDER) for _ in range(job.cold_starts)]
    sittings = [_child(folder, "sitting", *(() if index else ("--at-once",))) for index in range(job.sittings)]
    return {**join_sittings(sittings), "options": asdict(job.options), "cold": starts}


def _child(folder: Path, role: str, *arguments: str) -> dict[str, Any]:
    """What a fresh process found out."""
    answer = folder / CHILD_FILE
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", __package__, "--role", role, *arguments]
    finished = subprocess.run(command, cwd=folder, capture_output=True, check=False)  # noqa: S603
    if not answer.exists():
        said = finished.stderr.decode(errors="replace").strip()[-LAST_CHARACTERS:]
        raise JobError("failed", f"a process must end with 0 or 3, but ended with {finished.returncode}: {said}")
    content: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if error := content.get("error"):
        raise JobError(error["kind"], error["message"])
    return content

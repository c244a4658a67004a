"""Run the job in the present folder: ``python -m runner``.

Reads ``job.json``, writes ``result.json`` and exits with 0, or with 3 and the reason in ``result.json``.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .coordinator import CHILD_FILE, run_job
from .failures import JobError
from .job import RESULT_FILE, Job, write_json
from .process import cold_start, die_with_parent, sitting

FAILED = 3


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--role", choices=("cold", "sitting"), help="what a process of the runner's own has to do")
    parser.add_argument("--cache", type=Path, help="folder of the runtime's cache")
    parser.add_argument("--at-once", action="store_true", help="measure several requests at once, too")
    arguments = parser.parse_args()
    folder = Path.cwd()
    if arguments.role is None:
        return _answer(folder / RESULT_FILE, lambda: {"profile": run_job(folder)})
    die_with_parent()
    if arguments.role == "cold":
        cache = arguments.cache and folder / arguments.cache
        return _answer(folder / CHILD_FILE, lambda: cold_start(folder, Job.read(folder), cache=cache))
    return _answer(folder / CHILD_FILE, lambda: sitting(folder, Job.read(folder), at_once=arguments.at_once))


def _answer(path: Path, work: Callable[[], dict[str, Any]]) -> int:
    try:
        content, status = work(), 0
    except JobError as error:
        content, status = {"error": {"kind": error.kind, "message": str(error)}}, FAILED
    write_json(path, content)
    return status


if __name__ == "__main__":
    sys.exit(main())

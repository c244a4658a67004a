"""What to do, as ``job.json`` says it: written on the host, read by the runner."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .options import ProfileOptions
from .settings import RuntimeSettings

JOB_FILE, RESULT_FILE = "job.json", "result.json"
INPUTS_FILE, REFERENCES_FILE = "inputs.npz", "references.npz"
CACHE_FOLDER = "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One artifact to be measured.

    Args:
        format: Format of the artifact.
        file: What the runtime loads, within the folder of the job.
        files: SHA-256 of every file, by its path in the folder of the job.
        precision: Type of the artifact's weights.
        artifact_options: Options with which it was exported.
        subject: What is measured, as far as the host knows it.
        inputs: Names of the inputs in order.
        outputs: Names of the outputs in order.
        tolerance: Bounds on the errors against the references.
        threads: Threads that one run may use; ``None`` for one per core.
        cores: Numbers of the cores to run on; ``None`` for the last ones at hand.
        settings: How to open the runtime.
        options: How long to measure.
        sittings: Fresh processes among which the measurement is divided.
        cold_starts: Fresh processes without, and as many with the runtime's cache.
        concurrency: Numbers of requests at once.
    """

    format: str
    file: str
    files: Mapping[str, str]
    precision: str
    artifact_options: Mapping[str, Any]
    subject: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tolerance: Mapping[str, float | None]
    threads: int | None
    cores: tuple[int, ...] | None
    settings: RuntimeSettings
    options: ProfileOptions
    sittings: int
    cold_starts: int
    concurrency: tuple[int, ...]

    def write(self, folder: Path) -> None:
        """Write ``job.json``."""
        text = json.dumps(asdict(self), indent=1, allow_nan=False)
        (folder / JOB_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """Read ``job.json``."""
        content = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        cores = content["cores"]
        parsed = {
            "inputs": tuple(content["inputs"]),
            "outputs": tuple(content["outputs"]),
            "cores": cores if cores is None else tuple(cores),
            "settings": RuntimeSettings(**content["settings"]),
            "options": ProfileOptions(**content["options"]),
            "concurrency": tuple(content["concurrency"]),
        }
        return cls(**{**content, **parsed})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that is complete whenever it is there."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)

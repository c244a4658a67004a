"""Pack an artifact and the runner into one folder, and read what it brings back."""

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from exporters.api import load
from exporters.artifact import Artifact, record_files
from exporters.errors import (
    ArtifactError,
    ExportError,
    MeasurementError,
    MissingRuntimeError,
    ParityError,
    PlacementError,
    PlatformError,
)
from exporters.parity import TOLERANCES
from exporters.profiling.inputs import choose_inputs
from exporters.profiling.result import Profile
from exporters.profiling.runner.failures import FailureKind
from exporters.profiling.runner.job import INPUTS_FILE, REFERENCES_FILE, RESULT_FILE, Job
from exporters.profiling.runner.options import ProfileOptions, check_count
from exporters.profiling.runner.settings import RuntimeSettings
from exporters.runtimes import SESSIONS, import_runtime
from exporters.session import Session
from exporters.signature import TensorSpec
from exporters.tensorrt.options import GRAPH
from exporters.threads import available_threads

RUNNER = "runner"
CONCURRENT = ("onnx", "openvino")
FAILURES: Mapping[FailureKind, type[ExportError]] = {
    "missing_runtime": MissingRuntimeError,
    "outputs_differ": ParityError,
    "tampered": ArtifactError,
    "precision": PlatformError,
    "threads": PlacementError,
    "failed": MeasurementError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What a measurement in fresh processes has beyond one in this process.

    Args:
        cores: Numbers of the cores to run on; ``None`` for the last ones there, as many as threads.
        cold_starts: Fresh processes that start from nothing, and as many that find the runtime's cache where it has
            one (OpenVINO, ONNX Runtime); 0 for none.
        concurrency: Numbers of requests at once of which the throughput is measured; ONNX and OpenVINO only. They
            share ``cores``.
        sittings: Fresh processes among which warm-up and measurement are divided; from 7 on the intervals hold what
            instances of one file differ by, too.
        settings: How to open the runtime.
        timeout_s: Longest time for the whole job, s; ``None`` for the device's own setting, or 600 s.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a value is outside its range.

    Example:
        >>> from exporters.profiling import JobOptions
        >>> JobOptions(concurrency=(1, 0))
        Traceback (most recent call last):
        ValueError: `concurrency` must be at least 1, got 0.
    """

    cores: tuple[int, ...] | None = None
    cold_starts: int = 5
    sittings: int = 7
    concurrency: tuple[int, ...] = ()
    settings: RuntimeSettings = field(default_factory=RuntimeSettings)
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_count("cold_starts", self.cold_starts, minimum=0)
        check_count("sittings", self.sittings, minimum=1)
        for count in self.concurrency:
            check_count("concurrency", count, minimum=1)
        for core in self.cores or ():
            check_count("cores", core, minimum=0)
        if self.cores is not None and (not self.cores or len(set(self.cores)) < len(self.cores)):
            raise ValueError(f"`cores` must be None or different core numbers, at least one, got {self.cores}.")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise ValueError(f"`timeout_s` must be None or a finite number of seconds above 0, got {self.timeout_s!r}.")


def write_job(
    folder: Path,
    artifact: Artifact,
    *,
    threads: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] | None = None,
    options: ProfileOptions | None = None,
    job: JobOptions | None = None,
    references: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Fill a folder that measures an artifact with ``python -m runner``.

    Args:
        folder: An empty folder.
        artifact: What to measure.
        threads: Threads that one run may use; ``None`` for one per core.
        batch_size: Samples per run.
        seed: Seed of the random inputs.
        inputs: Arrays to run on, by input name; random ones if ``None``.
        options: How long to warm up and to measure.
        job: What else to measure, and how.
        references: The right outputs for the inputs, by name; ``None`` to compute them here with the artifact, or for
            TensorRT with its graph in ONNX Runtime, or in OpenVINO for bf16.

    Raises:
        ArtifactError: If the artifact is missing or was changed (also a `ValueError`).
        InputError: If the network does not take ``batch_size`` or ``inputs`` (also a `ValueError`).
        ValueError: If a number is outside its range, or the artifact's runtime has no such setting.
        TypeError: If an argument is of another type.
    """
    job, options = job or JobOptions(), options or ProfileOptions()
    artifact = Artifact.read(artifact.path)
    _check_settings(artifact, job, threads)
    arrays = choose_inputs(
        artifact.inputs, artifact.signature.dimensions, batch_size=batch_size, seed=seed, inputs=inputs
    )
    artifact.signature.check(arrays)
    if references is None:
        references = _reference_session(artifact).run(arrays)
    _save(folder / INPUTS_FILE, arrays)
    _save(folder / REFERENCES_FILE, references)
    shutil.copytree(Path(__file__).parent / RUNNER, folder / RUNNER, ignore=shutil.ignore_patterns("__pycache__"))
    Job(
        format=artifact.format,
        file=artifact.path.name,
        files=_copy_artifact(artifact, folder),
        precision=artifact.precision,
        artifact_options=dict(artifact.options),
        subject=_subject(artifact, arrays, batch_size=batch_size, seed=seed if inputs is None else None),
        inputs=tuple(spec.name for spec in artifact.inputs),
        outputs=tuple(spec.name for spec in artifact.outputs),
        tolerance=_tolerance(artifact, job.settings),
        threads=threads,
        cores=job.cores,
        settings=job.settings,
        options=options,
        sittings=job.sittings,
        cold_starts=job.cold_starts,
        concurrency=job.concurrency,
    ).write(folder)


def read_result(folder: Path, *, device: str = "local") -> Profile:
    """What the runner found.

    Args:
        folder: Folder of a job that has run.
        device: Where it ran.

    Returns:
        The profile.

    Raises:
        MissingRuntimeError: If the runtime is not installed there (also an `ImportError`).
        ParityError: If the network does not compute there what it computes here (also a `ValueError`).
        ArtifactError: If a file that arrived is not the one that was sent (also a `ValueError`).
        PlatformError: If the precision is not to be had there (also a `RuntimeError`).
        PlacementError: If the cores or threads are not there (also a `ValueError`).
        MeasurementError: If anything else went wrong (also a `RuntimeError`).
    """
    try:
        content: dict[str, Any] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeasurementError(f"{device}: the runner must have written {RESULT_FILE}, but {error}") from error
    if failure := content.get("error"):
        raise FAILURES[failure["kind"]](f"{device}: {failure['message']}")
    return Profile.from_content({**content["profile"], "device": device})


def _reference_session(artifact: Artifact) -> Session:
    if artifact.format != "tensorrt":
        return load(artifact)
    graph = dataclasses.replace(artifact, path=artifact.path / GRAPH)
    runtime = "openvino" if artifact.precision == "bf16" else "onnx"
    return cast(Session, import_runtime(SESSIONS, runtime)(graph, threads=available_threads(), precision="fp32"))


def _check_settings(artifact: Artifact, job: JobOptions, threads: int | None) -> None:
    job.settings.check_format(artifact.format)
    if job.concurrency and artifact.format not in CONCURRENT:
        raise ValueError(
            f"`concurrency` must be empty for {artifact.format}, which runs one request at a time here, "
            f"got {job.concurrency}."
        )
    if threads is not None:
        check_count("threads", threads, minimum=1)


def _subject(
    artifact: Artifact, arrays: Mapping[str, np.ndarray], *, batch_size: int, seed: int | None
) -> dict[str, Any]:
    return {
        "name": artifact.path.name,
        "artifact_sha256": artifact.sha256,
        "inputs": [asdict(TensorSpec(name, array.shape, array.dtype.name)) for name, array in arrays.items()],
        "batch_size": batch_size,
        "seed": seed,
    }


def _tolerance(artifact: Artifact, settings: RuntimeSettings) -> dict[str, float | None]:
    if settings.precision == "default":
        return asdict(TOLERANCES["bf16"])  # what OpenVINO may choose
    return asdict(artifact.parity.tolerance if artifact.parity else TOLERANCES[artifact.precision])


def _copy_artifact(artifact: Artifact, folder: Path) -> dict[str, str]:
    """Copy every file with the manifest, and return the hashes of those that the runtime reads."""
    source = artifact.path.parent
    names = tuple(record.name for record in artifact.files)
    if artifact.path.is_dir():
        names = (artifact.path.name,)  # with an engine that was built after the export
    records = record_files(source, names)
    for name in (*(record.name for record in records), artifact.manifest_path.name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    return {record.name: record.sha256 for record in records}


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]

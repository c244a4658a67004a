"""Open what is to be measured: an artifact by loading it, a session as it is."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from exporters.api import load
from exporters.artifact import Artifact
from exporters.errors import PlatformError
from exporters.profiling.inputs import choose_inputs
from exporters.profiling.runner.measure import TimedRun, stopwatch
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND
from exporters.profiling.subject import Subject
from exporters.runtimes import SESSIONS, import_runtime
from exporters.session import Session
from exporters.signature import TensorSpec

Target = Artifact | str | Path | Session


@runtime_checkable
class CheckableSession(Session, Protocol):
    """A session, by `isinstance`."""


@runtime_checkable
class TimedSession(Session, Protocol):
    """A session whose runs have parts with clocks of their own."""

    def last_parts_ns(self) -> Mapping[str, int]:
        """Times of the parts of the last run, ns, by name."""


class Candidate(NamedTuple):
    """A network ready to be timed.

    Args:
        subject: What it is.
        timed_run: Does one run on fixed inputs and returns its latency in ns.
        parts: Times of the parts of the last run, ns, by name; ``None`` where there are none.
    """

    subject: Subject
    timed_run: TimedRun
    parts: Callable[[], Mapping[str, int]] | None


def open_candidate(
    target: Target, *, threads: int | None, batch_size: int, seed: int, inputs: Mapping[str, np.ndarray] | None
) -> Candidate:
    """Load ``target`` unless it is a session, and fix its inputs.

    Args:
        target: An artifact, the path of its file or manifest, or a session.
        threads: Threads that one run may use; ``None`` for a session.
        batch_size: Samples per run.
        seed: Seed of the random inputs.
        inputs: Arrays to run on; random ones if ``None``.

    Returns:
        The network, not yet run.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a number is outside its range, or ``threads`` is given for a session.
        InputError: If the network does not take ``batch_size`` (also a `ValueError`).
        ArtifactError: If the artifact is missing or was changed (also a `ValueError`).
        PlatformError: If the artifact's runtime does not run here (also a `RuntimeError`).
    """
    session, artifact, load_ms = _open(target, threads)
    specs, dimensions = (session.inputs, {}) if artifact is None else (artifact.inputs, artifact.signature.dimensions)
    arrays = choose_inputs(specs, dimensions, batch_size=batch_size, seed=seed, inputs=inputs)
    subject = Subject(
        name=type(session).__name__ if artifact is None else artifact.path.name,
        artifact_sha256=None if artifact is None else artifact.sha256,
        inputs=tuple(TensorSpec(key, array.shape, array.dtype.name) for key, array in arrays.items()),
        batch_size=batch_size,
        seed=seed if inputs is None else None,
        properties=dict(session.properties),
        load_ms=load_ms,
    )
    parts = session.last_parts_ns if isinstance(session, TimedSession) else None
    return Candidate(subject, stopwatch(partial(session.run, arrays)), parts)


def _open(target: Target, threads: int | None) -> tuple[Session, Artifact | None, float | None]:
    if isinstance(target, CheckableSession):
        if threads is not None:
            raise ValueError(
                f"`threads` must be None for a session, whose threads are fixed, got {threads}; "
                f"give the artifact, or load it with `exporters.load(artifact, threads={threads})`."
            )
        return target, None, None
    artifact = read_artifact(target)
    import_runtime(SESSIONS, artifact.format)  # before the clock starts: a process imports once, whatever it loads
    start_ns = time.perf_counter_ns()
    session = load(artifact, threads=threads)
    load_ms = (time.perf_counter_ns() - start_ns) / NANOSECONDS_PER_MILLISECOND
    if real := session.properties.get("stands_in_for"):
        raise PlatformError(
            f"`target` must be profiled where {real} runs, got {artifact.path.name} on a system on which only its "
            f"numbers can be checked."
        )
    return session, artifact, load_ms


def read_artifact(target: object) -> Artifact:
    """The artifact itself, or the one at this path."""
    if isinstance(target, Artifact):
        return target
    if isinstance(target, str | Path):
        return Artifact.read(target)
    raise TypeError(
        f"`target` must be an artifact, its path or a session (with `inputs`, `outputs`, `properties` and `run`), "
        f"got {type(target).__name__}; make a session of a module with `exporters.pytorch_session`."
    )

"""Measure networks: one alone, at several batch sizes, or two against each other."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from exporters.profiling.candidate import Candidate, CheckableSession, Target, open_candidate
from exporters.profiling.comparison import Comparison, as_sittings
from exporters.profiling.devices import Device
from exporters.profiling.elsewhere import profile_elsewhere
from exporters.profiling.intervals import median_ratio
from exporters.profiling.job import JobOptions
from exporters.profiling.result import Profile
from exporters.profiling.runner.cores import read_cores
from exporters.profiling.runner.disturbance import disturbance_of
from exporters.profiling.runner.energy import read_idle_watts
from exporters.profiling.runner.machine import read_machine
from exporters.profiling.runner.measure import interleave, warm_up
from exporters.profiling.runner.memory import memory_between, read_memory
from exporters.profiling.runner.options import ProfileOptions, check_count
from exporters.profiling.runner.steady import measure_steady
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND
from exporters.profiling.subject import Subject

SITTINGS = 5


class _Sitting(NamedTuple):
    subjects: list[Subject]
    latencies_ns: np.ndarray
    steady: bool


def profile(
    target: Target,
    *,
    threads: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] | None = None,
    options: ProfileOptions | None = None,
    device: Device | str | None = None,
    job: JobOptions | None = None,
) -> Profile:
    """Measure the latency of a network, one run after the other.

    Loads, runs once, warms up until steady, then measures at least a count and at least a time. The inputs are the
    same arrays in every run. Checking them and copying outputs to NumPy is part of a run in this process; a device
    times the runtime's own call.

    Args:
        target: An artifact, the path of its file or manifest, or a session that is loaded already (PyTorch's too).
        threads: Threads that one run may use; ``None`` for every processor at hand. Must be ``None`` for a session.
        batch_size: Samples per run.
        seed: Seed of the random inputs.
        inputs: Arrays to run on, by input name; random ones if ``None``.
        options: How long to warm up and to measure; at least 200 runs and 3 s if ``None``.
        device: Where: ``None`` for this process; ``"local"`` for fresh processes on pinned cores of this machine, with
            cold starts; or another machine, see `exporters.profiling.devices`. Artifacts only.
        job: What to measure beside latency, and how, where there is a ``device``.

    Returns:
        Raw latencies, and percentiles with intervals and the other figures that follow from them.

    Raises:
        TypeError: If ``target`` is none of these, or an argument is of another type.
        ValueError: If ``threads`` is more than the processors at hand or given for a session, or a number is outside
            its range.
        InputError: If the network does not take ``batch_size`` or ``inputs`` (also a `ValueError`).
        ArtifactError: If ``target`` is a file without a manifest, or one that was changed (also a `ValueError`).
        ExportError: If the device cannot be reached or the job fails there; see
            `exporters.profiling.job.read_result` for the kinds.

    Example:
        >>> from exporters.profiling import ProfileOptions, profile
        >>> from exporters.signature import TensorSpec
        >>> class Doubling:
        ...     inputs = (TensorSpec("x", ("batch", 3), "float32"),)
        ...     outputs = (TensorSpec("y", ("batch", 3), "float32"),)
        ...     properties = {"runtime": "numpy", "threads": 1}
        ...
        ...     def run(self, inputs):
        ...         return {"y": 2 * inputs["x"]}
        >>> options = ProfileOptions(min_runs=50, min_seconds=0, min_warm_up_seconds=0)
        >>> result = profile(Doubling(), batch_size=8, options=options)
        >>> result.runs, result.threads, result.p50_ms.low > 0, result.p99_ms
        (50, 1, True, None)
    """
    options = options or ProfileOptions()
    if device is not None:
        return profile_elsewhere(
            target, device, threads=threads, batch_size=batch_size, seed=seed, inputs=inputs, options=options, job=job
        )
    if job is not None:
        raise ValueError(f"`job` must be None in this process, got {job}; give `device='local'`.")
    machine, idle_watts, memory_before = read_machine(), read_idle_watts(), read_memory()
    candidate = open_candidate(target, threads=threads, batch_size=batch_size, seed=seed, inputs=inputs)
    first_ns = candidate.timed_run()
    found = measure_steady(candidate.timed_run, options, parts=candidate.parts, idle_watts=idle_watts)
    memory_after = read_memory()
    return Profile(
        subject=candidate.subject,
        machine=machine,
        options=options,
        first_ms=first_ns / NANOSECONDS_PER_MILLISECOND,
        warm_up_ns=found.warm_up.latencies_ns,
        steady=found.warm_up.steady,
        latencies_ns=found.latencies_ns,
        sittings=(len(found.latencies_ns),),
        memory=memory_between(memory_before, memory_after) if memory_before and memory_after else None,
        cores=read_cores(),
        disturbance=disturbance_of(found.processor),
        energy=found.energy,
        parts_ns=found.parts_ns,
    )


def sweep(
    target: Target,
    *,
    batch_sizes: Sequence[int],
    threads: int | None = None,
    seed: int = 0,
    options: ProfileOptions | None = None,
    device: Device | str | None = None,
    job: JobOptions | None = None,
) -> tuple[Profile, ...]:
    """Measure a network at several batch sizes, one after the other.

    Args:
        target: See `profile`; it must take every size.
        batch_sizes: Samples per run, each once.
        threads: See `profile`.
        seed: See `profile`.
        options: See `profile`; for each size.
        device: See `profile`.
        job: See `profile`.

    Returns:
        One profile per size, in order.

    Raises:
        ValueError: If there is no size, or one twice; and as for `profile`.
    """
    if not batch_sizes or len(set(batch_sizes)) < len(batch_sizes):
        raise ValueError(f"`batch_sizes` must be different numbers, at least one, got {list(batch_sizes)}.")
    return tuple(
        profile(target, threads=threads, batch_size=size, seed=seed, options=options, device=device, job=job)
        for size in batch_sizes
    )


def compare(
    first: Target,
    second: Target,
    *,
    threads: int | None = None,
    batch_size: int = 1,
    seed: int = 0,
    inputs: Mapping[str, np.ndarray] | None = None,
    options: ProfileOptions | None = None,
) -> Comparison:
    """Measure two networks against each other in interleaved random blocks, and the first against itself.

    In each of five sittings the first network, its equal (the first loaded once more) and the second are loaded
    afresh, warmed up, and measured in rounds of one block each, in random order. The same procedure that gives the
    ratio of second to first gives, from the same rounds, the ratio of the equal to the first. That is the noise floor:
    only what lies outside it and outside the interval is called a difference.

    A session is not loaded afresh: its instance, which may be several percent faster or slower than the next by where
    its memory lies, is part of what is compared. Give artifacts to compare networks.

    Args:
        first: The network to compare with; see `profile`.
        second: The network that the verdict is about.
        threads: Threads that one run may use; ``None`` for every processor at hand. Must be ``None`` for sessions.
        batch_size: Samples per run.
        seed: Seed of the random inputs, of the order of the blocks and of the resampling.
        inputs: Arrays to run both on, by input name; random ones if ``None``.
        options: How long to warm up and to measure each; at least 200 runs and 3 s if ``None``.

    Returns:
        Ratio with interval, noise floor and verdict.

    Raises:
        TypeError: As for `profile`.
        ValueError: As for `profile`.
        InputError: As for `profile`.
        ArtifactError: As for `profile`.
    """
    options = options or ProfileOptions()
    check_count("seed", seed, minimum=0)
    machine = read_machine()
    generator = np.random.default_rng(seed)
    open_one = partial(open_candidate, threads=threads, batch_size=batch_size, seed=seed, inputs=inputs)
    sittings = [
        _sit([first, first, second], open_one, options.split(SITTINGS), generator=generator) for _ in range(SITTINGS)
    ]
    first_ns, control_ns, second_ns = zip(*(sitting.latencies_ns.tolist() for sitting in sittings), strict=True)
    subjects = sittings[0].subjects
    return Comparison(
        first=subjects[0],
        second=subjects[2],
        machine=machine,
        options=options,
        control="same instance" if isinstance(first, CheckableSession) else "other instances",
        steady=all(sitting.steady for sitting in sittings),
        first_ns=as_sittings(first_ns),
        control_ns=as_sittings(control_ns),
        second_ns=as_sittings(second_ns),
        ratio=median_ratio(second_ns, first_ns, seed=seed),
        noise=median_ratio(control_ns, first_ns, seed=seed),
    )


def _sit(
    targets: Sequence[Target],
    open_one: Callable[[Target], Candidate],
    options: ProfileOptions,
    *,
    generator: np.random.Generator,
) -> _Sitting:
    # In random order, because memory that an earlier sitting freed is handed out again in the order of loading.
    opened = {index: open_one(targets[index]) for index in generator.permutation(len(targets)).tolist()}
    candidates = [opened[index] for index in range(len(targets))]
    warm_ups = [warm_up(candidate.timed_run, options) for candidate in candidates]
    return _Sitting(
        subjects=[candidate.subject for candidate in candidates],
        latencies_ns=interleave([candidate.timed_run for candidate in candidates], options, generator=generator),
        steady=all(warm.steady for warm in warm_ups),
    )

"""What one fresh process does: a cold start, or one sitting of the measurement."""

import ctypes
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checking import check_files, check_outputs
from .concurrency import run_at_once
from .cores import can_pin, pin, read_cores
from .energy import read_idle_watts
from .failures import JobError
from .job import INPUTS_FILE, REFERENCES_FILE, Job
from .machine import read_machine
from .measure import stopwatch, timed
from .memory import memory_between, read_memory
from .runtimes import Network, find_runtime
from .steady import measure_steady

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


class Started(NamedTuple):
    """A network after its first run, whose outputs were right.

    Args:
        network: The network.
        cores: Cores in effect.
        import_ms: Import of the runtime, ms.
        load_ms: From the file to the network, ms.
        first_ms: First run, ms.
    """

    network: Network
    cores: tuple[int, ...]
    import_ms: float
    load_ms: float
    first_ms: float


def start(folder: Path, job: Job, *, cache: Path | None) -> Started:
    """Pin, check the files, import, load, run once and check the outputs.

    Args:
        folder: Folder of the job.
        job: Its content.
        cache: Folder of the runtime's cache; ``None`` to do without.

    Raises:
        JobError: If one of these fails.
    """
    cores, threads = place(job)
    check_files(folder, job.files)
    inputs = read_arrays(folder / INPUTS_FILE, job.inputs)
    references = read_arrays(folder / REFERENCES_FILE, job.outputs)
    runtime = find_runtime(job.format)
    _, import_ms = timed(runtime.import_runtime)
    path = folder / job.file
    network, load_ms = timed(lambda: runtime.open_network(path, job, inputs, threads=threads, cache=cache))
    found = network.properties["threads"]
    if runtime.TAKES_THREADS and found != threads:
        raise JobError("threads", f"the runtime must use {threads} threads as asked for, but uses {found}.")
    outputs, first_ms = timed(network.run)
    check_outputs(dict(zip(job.outputs, outputs, strict=True)), references, job.tolerance)
    return Started(network, cores, import_ms, load_ms, first_ms)


def cold_start(folder: Path, job: Job, *, cache: Path | None) -> dict[str, Any]:
    """The fields of a `ColdStart`."""
    started = start(folder, job, cache=cache)
    times = {"import_ms": started.import_ms, "load_ms": started.load_ms, "first_ms": started.first_ms}
    network = started.network
    return {**times, "cached": network.cached, "compile_ms": network.compile_ms, "page_cache": "warm"}


def sitting(folder: Path, job: Job, *, at_once: bool) -> dict[str, Any]:
    """What `join_sittings` takes: one of the measurements that a job is divided into.

    Args:
        folder: Folder of the job.
        job: Its content.
        at_once: Whether to measure several requests at once, too.
    """
    machine, idle_watts, memory_before = read_machine(), read_idle_watts(), read_memory()
    started = start(folder, job, cache=None)
    network = started.network
    options = job.options.split(job.sittings)
    found = measure_steady(stopwatch(network.run), options, parts=network.parts, idle_watts=idle_watts)
    memory_after = read_memory()
    memory = memory_between(memory_before, memory_after) if memory_before and memory_after else None
    return {
        "subject": {**job.subject, "properties": dict(network.properties), "load_ms": started.load_ms},
        "machine": asdict(machine),
        "first_ms": started.first_ms,
        "warm_up_ns": found.warm_up.latencies_ns,
        "steady": found.warm_up.steady,
        "latencies_ns": found.latencies_ns,
        "parts_ns": found.parts_ns,
        "memory": memory and asdict(memory),
        "cores": started.cores,
        "concurrency": [requests_at_once(count, network, job) for count in job.concurrency if at_once],
        "processor": found.processor,
        "energy": found.energy and asdict(found.energy),
    }


def requests_at_once(count: int, network: Network, job: Job) -> dict[str, Any]:
    """The fields of a `Concurrency`."""
    if network.another is None:
        raise JobError("failed", f"{job.format} runs one request at a time here; leave `concurrency` empty.")
    timed_runs = [stopwatch(network.another()) for _ in range(count)]
    return {
        "requests": count,
        "batch_size": job.subject["batch_size"],
        **run_at_once(timed_runs, job.options)._asdict(),
    }


def place(job: Job) -> tuple[tuple[int, ...], int]:
    """Pin this process before a runtime starts threads.

    Without cores in the job, the last ones at hand are taken: the first often serves the system's interrupts.

    Returns:
        The cores in effect, and how many threads one run may use.

    Raises:
        JobError: If the cores are not there, or are fewer than the threads.
    """
    available = read_cores()
    threads = job.threads or len(job.cores or available)
    if job.cores is not None and not set(job.cores) <= set(available):
        raise JobError("threads", f"`cores` must be among {list(available)} on the device, got {list(job.cores)}.")
    if threads > len(job.cores or available):
        raise JobError(
            "threads", f"`threads` must be at most {len(job.cores or available)}, the cores there, got {threads}."
        )
    if can_pin():
        available = pin(job.cores or available[-threads:])
    elif job.cores is not None:
        raise JobError("threads", f"`cores` must be None on {sys.platform}, which cannot pin, got {list(job.cores)}.")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return available, threads


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of a file by name, contiguous and in order."""
    with np.load(path, allow_pickle=False) as arrays:
        return {name: np.ascontiguousarray(arrays[name]) for name in names}


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)

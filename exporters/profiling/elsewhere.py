"""Measure in fresh processes, on this machine or another."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.profiling.candidate import CheckableSession, read_artifact
from exporters.profiling.devices import DEFAULT_TIMEOUT_S, Device, open_device
from exporters.profiling.job import JobOptions, read_result, write_job
from exporters.profiling.result import Profile
from exporters.profiling.runner.options import ProfileOptions


def profile_elsewhere(
    target: object,
    device: Device | str,
    *,
    threads: int | None,
    batch_size: int,
    seed: int,
    inputs: Mapping[str, np.ndarray] | None,
    options: ProfileOptions,
    job: JobOptions | None,
) -> Profile:
    """Pack a job, let the device run it, and read the result; see `exporters.profiling.profile`.

    What ``job`` and ``threads`` leave open is taken from the device's own settings.
    """
    if isinstance(target, CheckableSession):
        raise TypeError(
            f"`target` must be an artifact or its path on a device, got the session {type(target).__name__}, "
            f"which lives in this process; export the network, or leave `device` at None."
        )
    artifact = read_artifact(target)
    if isinstance(device, str):
        device = open_device(device)
    settings, job = device.settings, job or JobOptions()
    job = dataclasses.replace(job, cores=job.cores or settings.cores)
    with tempfile.TemporaryDirectory(prefix="lightning-kd-job-") as name:
        folder = Path(name)
        write_job(
            folder,
            artifact,
            threads=settings.threads if threads is None else threads,
            batch_size=batch_size,
            seed=seed,
            inputs=inputs,
            options=options,
            job=job,
        )
        device.run(folder, timeout_s=job.timeout_s or settings.timeout_s or DEFAULT_TIMEOUT_S)
        return read_result(folder, device=settings.name)

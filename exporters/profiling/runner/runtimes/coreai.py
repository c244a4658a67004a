"""Core AI, on macOS 27."""

import asyncio
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..cores import read_cores
from ..failures import JobError
from ..job import Job
from . import Network, need, nothing_to_prepare

HAS_CACHE = False
TAKES_THREADS = False
PACKAGE = "coreai-core"
prepare = nothing_to_prepare


def import_runtime() -> None:
    """Import Core AI, and make sure that it is not the interpreter, which says nothing of latency."""
    need("coreai.authoring.asset", install=PACKAGE)
    if not need("coreai.runtime", install=PACKAGE).SpecializationOptions.is_supported():
        raise JobError("missing_runtime", "Core AI of macOS 27 must be there, but only its interpreter is.")


def open_network(
    path: Path,
    job: Job,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: int,  # noqa: ARG001 - Core AI decides by itself
    cache: Path | None,  # noqa: ARG001 - Core AI keeps its own
) -> Network:
    """Load an asset."""
    runtime: Any = need("coreai.runtime", install=PACKAGE)
    loop = asyncio.new_event_loop()
    try:
        function = loop.run_until_complete(_load(path))
    except (RuntimeError, KeyError) as error:
        raise JobError("failed", f"Core AI must load {path.name}, but {error}") from error
    feeds = {name: runtime.NDArray(array) for name, array in inputs.items()}

    async def call() -> list[np.ndarray]:
        found = await function(feeds)
        return [np.array(found[name].numpy(), order="C") for name in job.outputs]

    def run() -> list[np.ndarray]:
        return loop.run_until_complete(call())

    properties: dict[str, str | int | float] = {
        "runtime": "coreai",
        "runtime_version": importlib.metadata.version(PACKAGE),
        "device": "Core AI of the operating system",
        "threads": len(read_cores()),
        "active_precision": job.precision,
    }
    return Network(run, properties)


async def _load(path: Path) -> Any:
    asset: Any = need("coreai.authoring.asset", install=PACKAGE).AIModelAsset
    async with asset.load(path).executable() as model:
        return model.load_function("main")

"""ExecuTorch, on the CPU."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..failures import JobError
from ..job import Job
from ..measure import timed
from . import Network, need, nothing_to_prepare

HAS_CACHE = False
TAKES_THREADS = True
DELEGATES = {"coreml": "CoreMLBackend", "xnnpack": "XnnpackBackend"}
BINDINGS = "executorch.extension.pybindings.portable_lib"
prepare = nothing_to_prepare


def import_runtime() -> None:
    """Import ExecuTorch, and PyTorch, whose tensors its Python interface takes."""
    for package in ("torch", BINDINGS, "executorch.runtime"):
        need(package, install="executorch")


def open_network(
    path: Path,
    job: Job,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: int,
    cache: Path | None,  # noqa: ARG001 - ExecuTorch has none
) -> Network:
    """Load a file."""
    torch, bindings = sys.modules["torch"], need(BINDINGS, install="executorch")
    runtime: Any = need("executorch.runtime", install="executorch").Runtime.get()
    delegate = DELEGATES.get(str(job.artifact_options.get("backend")))
    if delegate is not None and not runtime.backend_registry.is_available(delegate):
        raise JobError("missing_runtime", f"{path.name} needs an ExecuTorch with {delegate}, and this one has none.")
    if bindings._threadpool_get_thread_count() != threads:  # noqa: SLF001 - no public name exists
        bindings._unsafe_reset_threadpool(threads)  # noqa: SLF001
    try:
        program = runtime.load_program(path)
        method, compile_ms = timed(lambda: program.load_method("forward"))
    except RuntimeError as error:
        raise JobError("failed", f"ExecuTorch must load {path.name}, but {error}") from error
    # A method reads from its program's memory without keeping it alive.
    kept = (program, method)
    tensors = [torch.from_numpy(array) for array in inputs.values()]

    def run() -> list[np.ndarray]:
        return [output.numpy() for output in kept[1].execute(tensors)]

    properties = {
        "runtime": "executorch",
        "runtime_version": need("executorch.version", install="executorch").__version__,
        "device": "CPU",
        "threads": bindings._threadpool_get_thread_count(),  # noqa: SLF001
        "delegate": delegate or "none",
        "active_precision": job.precision,
    }
    return Network(run, properties, compile_ms=compile_ms)

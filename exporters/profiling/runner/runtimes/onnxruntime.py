"""ONNX Runtime, on the CPU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..failures import JobError
from ..job import Job
from . import Network, need, nothing_to_prepare

HAS_CACHE = True
TAKES_THREADS = True
OPTIMIZED = "optimized.onnx"
ERRORS_ONLY = 3
STATES = "onnxruntime.capi.onnxruntime_pybind11_state"
LOAD_ERRORS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
prepare = nothing_to_prepare


def import_runtime() -> None:
    """Import ONNX Runtime."""
    need("onnxruntime", install="onnxruntime")


def open_network(
    path: Path, job: Job, inputs: Mapping[str, np.ndarray], *, threads: int, cache: Path | None
) -> Network:
    """Load a file; with a cache, the graph that ONNX Runtime optimised and saved before."""
    runtime: Any = need("onnxruntime", install="onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY  # a saved graph is for this machine, of which it warns
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if job.settings.spinning else "0")
    cached = cache is not None and (cache / OPTIMIZED).exists()
    if cache is not None and cached:
        path = cache / OPTIMIZED
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif cache is not None:
        options.optimized_model_filepath = str(cache / OPTIMIZED)
    states = need(STATES, install="onnxruntime")
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except tuple(getattr(states, name) for name in LOAD_ERRORS) as error:
        raise JobError("failed", f"ONNX Runtime must load {path.name}, but {error}") from error
    effective = session.get_session_options()
    names, feeds = list(job.outputs), dict(inputs)

    def run() -> list[np.ndarray]:
        return session.run(names, feeds)  # type: ignore[no-any-return]

    properties = {
        "runtime": "onnxruntime",
        "runtime_version": runtime.__version__,
        "device": session.get_providers()[0],
        "threads": effective.intra_op_num_threads,
        "spinning": effective.get_session_config_entry("session.intra_op.allow_spinning"),
        "active_precision": job.precision,
    }
    # A session may be run from several threads at once.
    return Network(run, properties, another=lambda: run, cached=cached)

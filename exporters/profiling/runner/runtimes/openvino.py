"""OpenVINO, on the CPU."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..failures import JobError
from ..job import Job
from ..measure import timed
from . import Network, Run, need, nothing_to_prepare

HAS_CACHE = True
TAKES_THREADS = True
HINTS = {"fp32": "f32", "bf16": "bf16"}
PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
prepare = nothing_to_prepare


def import_runtime() -> None:
    """Import OpenVINO without its telemetry, which would report to a server and fork this process."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    need("openvino", install="openvino")


def open_network(
    path: Path, job: Job, inputs: Mapping[str, np.ndarray], *, threads: int, cache: Path | None
) -> Network:
    """Compile a file; with a cache, OpenVINO reads what it compiled before."""
    openvino: Any = need("openvino", install="openvino")
    core = openvino.Core()
    asked = _asked_precision(job)
    if asked == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise JobError("precision", f"{path.name} is bf16, which this processor computes in float32 only.")
    try:
        configuration = _configuration(job, asked, threads=threads, cache=cache)
        # With a cache OpenVINO does not even read the model, so that there is nothing to be told apart.
        model = core.read_model(path) if cache is None else path
        compiled, compile_ms = timed(lambda: core.compile_model(model, "CPU", configuration))
    except RuntimeError as error:
        raise JobError("failed", f"OpenVINO must compile {path.name}, but {error}") from error
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    active = PRECISIONS.get(hint, hint)
    if asked is not None and active != asked:
        raise JobError("precision", f"OpenVINO must compute in {asked} as asked for, but computes in {active}.")

    def another() -> Run:
        request = compiled.create_infer_request()
        feeds = dict(inputs)

        def run() -> list[np.ndarray]:
            request.infer(feeds, share_inputs=True, share_outputs=True)
            return [request.get_tensor(name).data for name in job.outputs]

        return run

    properties = {
        "runtime": "openvino",
        "runtime_version": openvino.__version__,
        "device": "CPU",
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "streams": int(compiled.get_property("NUM_STREAMS")),
        "hint": job.settings.hint,
        "best_requests": int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")),
        "active_precision": "int8" if job.precision == "int8" else active,
        "float_precision": active,
    }
    cached = bool(compiled.get_property("LOADED_FROM_CACHE"))
    return Network(another(), properties, another=another, cached=cached, compile_ms=None if cache else compile_ms)


def _asked_precision(job: Job) -> str | None:
    if job.precision == "bf16":
        return "bf16"
    return "fp32" if job.settings.precision == "fp32" else None


def _configuration(job: Job, asked: str | None, *, threads: int, cache: Path | None) -> dict[str, str]:
    streams = job.settings.streams or (1 if job.settings.hint == "latency" else None)
    chosen = {
        "PERFORMANCE_HINT": job.settings.hint.upper(),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "INFERENCE_PRECISION_HINT": asked and HINTS[asked],
        "CACHE_DIR": cache,
    }
    return {name: str(value) for name, value in chosen.items() if value is not None}

"""TensorRT, on the first GPU.

The exported folder carries the modules with which its engine is built and loaded; they are used here.
"""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..failures import JobError
from ..job import Job
from . import Network, need

if TYPE_CHECKING:
    import tensorrt as trt

HAS_CACHE = False
TAKES_THREADS = False
ENGINE, GRAPH, RECORD, LAUNCHER = "model.engine", "model.onnx", "model.engine.json", "build.py"


def prepare(path: Path) -> None:
    """Build the engine if it did not come along: one for another GPU or TensorRT would not load."""
    if (path / ENGINE).exists():
        return
    built = subprocess.run(  # noqa: S603
        [sys.executable, str(path / LAUNCHER)], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise JobError("missing_runtime", f"the engine must be built on the device, but {built.stderr.strip()}")


def import_runtime() -> None:
    """Import TensorRT and NVIDIA's CUDA bindings."""
    need("tensorrt", install="tensorrt")
    need("cuda.bindings.runtime", install="cuda-python")


def open_network(
    path: Path,
    job: Job,
    inputs: Mapping[str, np.ndarray],
    *,
    threads: int,  # noqa: ARG001 - the GPU computes
    cache: Path | None,  # noqa: ARG001 - the engine is compiled already
) -> Network:
    """Load the engine; a run copies inputs to the GPU, computes, copies outputs back and waits for them."""
    sys.path.insert(0, str(path))
    tensorrt: Any = need("tensorrt", install="tensorrt")
    memory: Any = importlib.import_module("exporters.tensorrt.memory").DeviceMemory()
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    engine: trt.ICudaEngine = _load_engine(tensorrt, path, record)
    context: trt.IExecutionContext = engine.create_execution_context()
    for name, array in inputs.items():
        if not context.set_input_shape(name, array.shape):
            raise JobError("failed", f"the engine must take `{name}` of shape {array.shape}, but it does not.")
        context.set_tensor_address(name, memory.upload(name, array))
    if unknown := context.infer_shapes():
        raise JobError("failed", f"the engine must know all shapes from those of its inputs, but not of {unknown}.")
    outputs = [
        np.empty(tuple(context.get_tensor_shape(name)), tensorrt.nptype(engine.get_tensor_dtype(name)))
        for name in job.outputs
    ]
    for name, array in zip(job.outputs, outputs, strict=True):
        context.set_tensor_address(name, memory.address(name, array.nbytes))

    def launch() -> None:
        if not context.execute_async_v3(memory.stream):
            raise JobError("failed", "the engine must run, but TensorRT refused; its messages above say why.")

    launch()  # the first one may allocate, which a recording must not
    start = memory.recorded(launch) if job.settings.cuda_graph else launch
    timer = _Timer(memory, start)

    def run() -> list[np.ndarray]:
        for name, array in inputs.items():
            memory.upload(name, array)
        timer.launch()
        for name, array in zip(job.outputs, outputs, strict=True):
            memory.download(name, array)
        return outputs

    properties = {
        "runtime": "tensorrt",
        "runtime_version": tensorrt.__version__,
        "device": record["device"]["name"],
        "threads": 1,
        "cuda_graph": str(job.settings.cuda_graph),
        "active_precision": record["precision"],
    }
    return Network(run, properties, parts=timer.parts)


class _Timer:
    """Times a launch on two clocks: the GPU's between two events around it, and the host's during the call."""

    def __init__(self, memory: Any, launch: Callable[[], None]) -> None:
        self._memory, self._launch = memory, launch
        self._before, self._after = memory.event(), memory.event()
        self._enqueue_ns = 0

    def launch(self) -> None:
        """Launch between the events."""
        self._memory.record(self._before)
        start_ns = time.perf_counter_ns()
        self._launch()
        self._enqueue_ns = time.perf_counter_ns() - start_ns
        self._memory.record(self._after)

    def parts(self) -> dict[str, int]:
        """Times of the last launch, which has ended, ns."""
        return {"compute": self._memory.elapsed_ns(self._before, self._after), "enqueue": self._enqueue_ns}


def _load_engine(tensorrt: Any, path: Path, record: Mapping[str, Any]) -> "trt.ICudaEngine":
    engine, options = (importlib.import_module(f"exporters.tensorrt.{name}") for name in ("engine", "options"))
    logger: trt.Logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    try:
        loaded: trt.ICudaEngine = engine.load_engine(
            tensorrt,
            logger,
            (path / ENGINE).read_bytes(),
            graph=path / GRAPH,
            options=options.BuildOptions(**record["options"]),
        )
    except options.BuildError as error:
        raise JobError("failed", str(error)) from error
    return loaded

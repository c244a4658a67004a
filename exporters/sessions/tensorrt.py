"""TensorRT engines, on the first GPU."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.artifact import Artifact, sha256_of
from exporters.errors import ArtifactError, ExportError, MissingRuntimeError
from exporters.session import InferencePrecision
from exporters.tensorrt.engine import load_engine, load_tensorrt
from exporters.tensorrt.memory import DeviceMemory
from exporters.tensorrt.options import ENGINE, GRAPH, RECORD, BuildError, BuildOptions, UnavailableError

if TYPE_CHECKING:
    import tensorrt as trt


class TensorRTSession:
    """A network in TensorRT, with buffers of its own on the GPU.

    Args:
        artifact: The exported folder, in which an engine was built.
        threads: Makes no difference here: the GPU computes.
        precision: Makes no difference here; both mean the types of the graph.

    Raises:
        ArtifactError: If there is no engine, or it was built from another graph, or cannot be loaded here.
        MissingRuntimeError: If TensorRT or NVIDIA's CUDA bindings are not installed.
        PlatformError: If there is no usable GPU.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:  # noqa: ARG002
        record = _record(artifact)
        tensorrt = _tensorrt()
        self._tensorrt = tensorrt
        self._memory = DeviceMemory()
        self._engine: trt.ICudaEngine = _engine(tensorrt, artifact, BuildOptions(**record["options"]))
        self._context: trt.IExecutionContext = self._engine.create_execution_context()
        self._signature = artifact.signature
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        for spec in (*self.inputs, *self.outputs):
            dtype = np.dtype(tensorrt.nptype(self._engine.get_tensor_dtype(spec.name)))
            if dtype != spec.dtype:
                raise ArtifactError(f"`{spec.name}` of the engine must be {spec.dtype}, got {dtype}; build it again.")
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "tensorrt",
            "runtime_version": tensorrt.__version__,
            "device": record["device"]["name"],
            "threads": 1,
            "active_precision": record["precision"],
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        # Held until the stream has been waited for: copies from them are asynchronous.
        sent = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in sent.items():
            if not self._context.set_input_shape(name, array.shape):
                raise ExportError(
                    f"the engine must take `{name}` of shape {array.shape}, but it does not; build again."
                )
            self._context.set_tensor_address(name, self._memory.upload(name, array))
        unknown = self._context.infer_shapes()
        if unknown:
            raise ExportError(f"the engine must know all shapes from those of its inputs, but not so of {unknown}.")
        outputs = {
            spec.name: np.empty(tuple(self._context.get_tensor_shape(spec.name)), spec.dtype) for spec in self.outputs
        }
        for name, array in outputs.items():
            self._context.set_tensor_address(name, self._memory.address(name, array.nbytes))
        if not self._context.execute_async_v3(self._memory.stream):
            raise ExportError("the engine must run, but TensorRT refused; its messages above say why.")
        for name, array in outputs.items():
            self._memory.download(name, array)
        return outputs

    def report_layers_to(self, receive: Callable[[str, float], None]) -> None:
        """From now on, let TensorRT time every layer of every run, which makes runs slower.

        Args:
            receive: Called with a layer's name and its time in ms, for every layer of every run.
        """

        class Profiler(self._tensorrt.IProfiler):  # type: ignore[misc, name-defined]
            def report_layer_time(self, layer_name: str, ms: float) -> None:
                receive(layer_name, ms)

        self._context.profiler = Profiler()


def _record(artifact: Artifact) -> dict[str, Any]:
    """What was built, checked against the files there are."""
    try:
        record: dict[str, Any] = json.loads((artifact.path / RECORD).read_text(encoding="utf-8"))
        found = sha256_of(artifact.path / ENGINE)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"`path` must hold an engine, got {artifact.path} without {ENGINE}; run: python {artifact.path}/build.py"
        ) from error
    if record["onnx_sha256"] != sha256_of(artifact.path / GRAPH) or record["engine_sha256"] != found:
        raise ArtifactError(
            f"{ENGINE} must have been built from the {GRAPH} beside it, but it was not; "
            f"run: python {artifact.path}/build.py"
        )
    return record


def _tensorrt() -> Any:
    try:
        return load_tensorrt()
    except UnavailableError as error:
        raise MissingRuntimeError(str(error)) from error


def _engine(tensorrt: Any, artifact: Artifact, options: BuildOptions) -> "trt.ICudaEngine":
    plan = (artifact.path / ENGINE).read_bytes()
    logger: trt.Logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    try:
        return load_engine(tensorrt, logger, plan, graph=artifact.path / GRAPH, options=options)
    except BuildError as error:
        raise ArtifactError(f"`path` must hold an engine that TensorRT loads, got {artifact.path}: {error}") from error

"""ONNX files in ONNX Runtime, on the CPU."""

from collections.abc import Mapping

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

from exporters.artifact import Artifact
from exporters.errors import ArtifactError
from exporters.session import InferencePrecision

_LOAD_ERRORS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException)


class OnnxRuntimeSession:
    """A network in ONNX Runtime.

    Worker threads sleep between calls instead of spinning: several idle sessions in one process would otherwise take
    the processor from the one that runs. ONNX Runtime computes every node in the type written in the graph.

    Args:
        artifact: The exported file.
        threads: Threads that one call may use.
        precision: Makes no difference here; both mean the types of the graph.
        fuse_quantized: Whether operators between Q/DQ pairs are computed in integers; ``False`` computes what the graph
            says, pair by pair. ONNX Runtime 1.31 computes something else where it fuses pairs with float16 scales.

    Raises:
        ArtifactError: If ONNX Runtime cannot load the file.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int,
        precision: InferencePrecision,  # noqa: ARG002
        fuse_quantized: bool = True,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_quantized else "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(artifact.path), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as error:
            raise ArtifactError(
                f"`path` must be a file that ONNX Runtime loads, got {artifact.path}: {error}"
            ) from error
        self._signature = artifact.signature
        self._names = [spec.name for spec in artifact.outputs]
        self.inputs = artifact.inputs
        self.outputs = artifact.outputs
        effective = self._session.get_session_options()
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "onnxruntime",
            "runtime_version": onnxruntime.__version__,
            "device": self._session.get_providers()[0],
            "threads": effective.intra_op_num_threads,
            "spinning": effective.get_session_config_entry("session.intra_op.allow_spinning"),
            "active_precision": artifact.precision,
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))

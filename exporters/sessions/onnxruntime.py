"""ONNX files in ONNX Runtime, on the CPU."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from exporters.errors import ArtifactError, MissingRuntimeError
from exporters.session import InferencePrecision, failed_run

_ERRORS = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf, NoSuchFile, NotImplemented, RuntimeException)


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
        try:
            self._session = open_file(str(artifact.path), threads=threads, fuse_quantized=fuse_quantized)
        except _ERRORS as error:
            raise ArtifactError(
                f"`path` must be a file that ONNX Runtime loads, got {artifact.path}: {error}"
            ) from error
        self._artifact = artifact
        self._threads, self._fuse_quantized = threads, fuse_quantized
        self._tracer: onnxruntime.InferenceSession | None = None
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
        try:
            outputs = self._session.run(self._names, dict(inputs))
        except _ERRORS as error:
            raise failed_run("ONNX Runtime", inputs, error) from error
        return dict(zip(self._names, outputs, strict=True))

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute every intermediate value of one batch, from a copy of the graph whose values are all outputs.

        Args:
            inputs: As for `run`.

        Returns:
            Arrays by the name of their node in the captured program, and some that only the file has.

        Raises:
            InputError: If names, dtypes or shapes do not fit.
            MissingRuntimeError: If the package onnx, which makes the copy, is not installed.
        """
        self._signature.check(inputs)
        if self._tracer is None:
            content = _with_all_outputs(self._artifact)
            self._tracer = open_file(content, threads=self._threads, fuse_quantized=self._fuse_quantized)
        names = [output.name for output in self._tracer.get_outputs()]
        return dict(zip(names, self._tracer.run(names, dict(inputs)), strict=True))


def open_file(
    model: str | bytes,
    *,
    threads: int,
    fuse_quantized: bool = True,
    optimized: Path | None = None,
    trace: Path | None = None,
) -> onnxruntime.InferenceSession:
    """A session of ONNX Runtime itself, on the CPU.

    Args:
        model: Path of the file, or its content.
        threads: Threads that one call may use.
        fuse_quantized: Whether operators between Q/DQ pairs are computed in integers.
        optimized: Where ONNX Runtime writes the graph that it executes, but for layouts; ``None`` for nowhere.
        trace: Beginning of the path of the file to which ``end_profiling`` writes the time of every node; ``None`` for
            none, and no profiling.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_quantized else "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        # Beyond this level come layouts of this processor, which hide the names.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def import_onnx(purpose: str) -> Any:
    """The package that reads graphs, which running them does not need.

    Raises:
        MissingRuntimeError: If it is not installed; the message has the purpose, such as ``"trace values"``.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise MissingRuntimeError(
            f"`onnx` must be installed to {purpose}, but {error}; run: pip install 'lightning-kd[onnx]'"
        ) from error


def _with_all_outputs(artifact: Artifact) -> bytes:
    onnx = import_onnx("trace values")
    model = onnx.load(artifact.path)
    known = {output.name for output in model.graph.output}
    names = dict.fromkeys(name for node in model.graph.node for name in node.output if name and name not in known)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return bytes(model.SerializeToString())

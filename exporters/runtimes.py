"""Which module serves which format; none of them is imported before it is asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from exporters.errors import MissingRuntimeError

EXPORTERS: Mapping[str, tuple[str, str]] = {
    "coreai": ("exporters.coreai", "CoreAIExporter"),
    "coreml": ("exporters.coreml", "CoreMLExporter"),
    "executorch": ("exporters.executorch", "ExecuTorchExporter"),
    "onnx": ("exporters.onnx", "OnnxExporter"),
    "openvino": ("exporters.openvino", "OpenVINOExporter"),
    "tensorrt": ("exporters.tensorrt.exporter", "TensorRTExporter"),
}
"""Module and class of the exporter of every format."""

SESSIONS: Mapping[str, tuple[str, str]] = {
    "coreai": ("exporters.sessions.coreai", "CoreAISession"),
    "coreml": ("exporters.sessions.coreml", "open_session"),
    "executorch": ("exporters.sessions.executorch", "ExecuTorchSession"),
    "onnx": ("exporters.sessions.onnxruntime", "OnnxRuntimeSession"),
    "openvino": ("exporters.sessions.openvino", "OpenVINOSession"),
    "tensorrt": ("exporters.sessions.tensorrt", "TensorRTSession"),
}
"""Module and name of what opens a session, by format."""


def import_runtime(table: Mapping[str, tuple[str, str]], format: str, *, extra: str | None = None) -> Any:
    """What serves ``format`` in ``table``; it comes with ``extra``, or the extra of that name if ``None``.

    Raises:
        MissingRuntimeError: If a package that it needs is not installed.
    """
    module, name = table[format]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise MissingRuntimeError(
            f"`{format}` must be installed, but {error}; run: pip install 'lightning-kd[{extra or format}]'"
        ) from error

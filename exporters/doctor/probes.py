"""Asks one runtime what it finds; run as ``python -m exporters.doctor.probes NAME``, because a runtime may crash."""

import importlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from exporters.quiet import errors_only, no_telemetry

RUNS_HERE = "converts, and runs here"


def probe(name: str) -> dict[str, Any]:
    """Import what ``name`` needs and ask it.

    Returns:
        ``devices``, that the runtime computes on, and ``use``: what can be done with it here.

    Raises:
        ImportError: If a package is missing.
    """
    return PROBES[name]()


def _onnx() -> dict[str, Any]:
    _import("onnx", "onnxscript")
    return {"devices": _import("onnxruntime").get_available_providers(), "use": RUNS_HERE}


def _openvino() -> dict[str, Any]:
    with no_telemetry():
        core = _import("openvino").Core()
    devices = {
        device: (core.get_property(device, "FULL_DEVICE_NAME"), core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
        for device in core.available_devices
    }
    return {
        "devices": [f"{device}: {name} ({', '.join(types)})" for device, (name, types) in devices.items()],
        "use": RUNS_HERE,
    }


def _coreml() -> dict[str, Any]:
    with errors_only("coremltools"):
        _import("coremltools")
    if sys.platform == "darwin":
        return {"devices": ["CPU", "GPU", "Neural Engine"], "use": RUNS_HERE}
    return {"devices": [], "use": "converts; checked here op by op in PyTorch, run by Core ML on macOS and iOS only"}


def _coreai() -> dict[str, Any]:
    _import("coreai_torch")
    _import("coreai.runtime")
    if sys.platform == "darwin":
        return {"devices": ["CPU", "GPU", "Neural Engine"], "use": RUNS_HERE}
    return {"devices": ["interpreter"], "use": "converts, and runs here in Core AI's interpreter"}


def _executorch() -> dict[str, Any]:
    registry = _import("executorch.runtime").Runtime.get().backend_registry
    names = [name for name in registry.registered_backend_names if registry.is_available(name)]
    return {"devices": ["portable", *sorted(names)], "use": RUNS_HERE}


def _tensorrt() -> dict[str, Any]:
    tensorrt = _import("tensorrt")
    tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    return {"devices": [f"TensorRT {tensorrt.__version__}"], "use": "builds engines, and runs here"}


def _speech() -> dict[str, Any]:
    _import("transformers", "jiwer", "soundfile")
    return {"devices": [], "use": "speech networks and their metrics"}


def _report() -> dict[str, Any]:
    _import("jinja2", "matplotlib", "sklearn")
    return {"devices": [], "use": "reports, plots and the demo"}


PROBES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "coreml": _coreml,
    "coreai": _coreai,
    "executorch": _executorch,
    "tensorrt": _tensorrt,
    "speech": _speech,
    "report": _report,
}
"""What asks the runtime, or the packages, of every extra."""


def _import(*names: str) -> Any:
    """The last of some modules, all of them imported."""
    return [importlib.import_module(name) for name in names][-1]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.stdout.write("\n" + json.dumps(probe(sys.argv[1])) + "\n")

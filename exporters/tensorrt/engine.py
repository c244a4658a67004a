"""TensorRT itself: is it there, is there a GPU, load a plan, look into it."""

import ctypes
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.tensorrt.options import BuildError, BuildOptions, UnavailableError

if TYPE_CHECKING:
    import tensorrt as trt


def load_tensorrt() -> Any:
    """TensorRT's Python module.

    Raises:
        UnavailableError: If it is not installed, or its libraries are not.
    """
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise UnavailableError(
            f"TensorRT 10 or 11 must be installed to build an engine, but {error}; run: pip install tensorrt"
        ) from error


def describe_device() -> dict[str, Any]:
    """Name, compute capability and driver of the first GPU.

    Raises:
        UnavailableError: If there is no GPU or no driver.
    """
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise UnavailableError(
            f"an NVIDIA GPU and its driver must be there to build an engine, but {error}; copy the folder to the "
            f"machine that will run the network and run build.py there."
        ) from error
    device, number, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)

    def asked(function: Any, *arguments: Any) -> int:
        status = function(*arguments)
        if status:
            raise UnavailableError(
                f"an NVIDIA GPU must be usable to build an engine, but CUDA returned error {status}."
            )
        return number.value

    asked(cuda.cuInit, 0)
    asked(cuda.cuDeviceGet, ctypes.byref(device), 0)
    asked(cuda.cuDeviceGetName, name, len(name), device)
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    major, minor = (asked(cuda.cuDeviceGetAttribute, ctypes.byref(number), which, device) for which in (75, 76))
    driver = asked(cuda.cuDriverGetVersion, ctypes.byref(number))
    return {"name": name.value.decode(), "compute_capability": f"{major}.{minor}", "cuda_driver": driver}


def load_engine(
    tensorrt: Any, logger: "trt.Logger", plan: bytes, *, graph: Path, options: BuildOptions
) -> "trt.ICudaEngine":
    """Load a plan, with the weights of the graph if it has none of its own.

    Args:
        tensorrt: TensorRT's module.
        logger: Where it reports.
        plan: The serialised engine.
        graph: The ONNX file from which it was built.
        options: Those with which it was built.

    Returns:
        The engine, ready to run.

    Raises:
        BuildError: If TensorRT cannot load it, or the weights do not fit.
    """
    runtime: trt.Runtime = tensorrt.Runtime(logger)
    runtime.engine_host_code_allowed = options.version_compatible
    engine: trt.ICudaEngine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(
            f"the engine must fit TensorRT {tensorrt.__version__} and this GPU, but it cannot be loaded; build it here."
        )
    if options.weights == "stripped":
        refitter: trt.Refitter = tensorrt.Refitter(engine, logger)
        parser: trt.OnnxParserRefitter = tensorrt.OnnxParserRefitter(refitter, logger)
        if not parser.refit_from_file(str(graph)) or not refitter.refit_cuda_engine():
            raise BuildError(f"the weights of {graph.name} must fit the stripped engine, but {parser_errors(parser)}.")
    return engine


def inspect_engine(
    tensorrt: Any, engine: "trt.ICudaEngine", profiles: Mapping[str, Mapping[str, list[int]]]
) -> dict[str, Any]:
    """The layers of an engine as TensorRT's inspector describes them, at the shapes for which it was tuned.

    Without shapes the inspector leaves types out, "due to dynamic shapes".
    """
    context: trt.IExecutionContext = engine.create_execution_context()
    for name, shapes in profiles.items():
        context.set_input_shape(name, tuple(shapes["opt"]))
    inspector: trt.EngineInspector = engine.create_engine_inspector()
    inspector.execution_context = context
    information: dict[str, Any] = json.loads(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))
    return information


def parser_errors(parser: "trt.OnnxParser | trt.OnnxParserRefitter") -> str:
    """What a parser has against a graph."""
    found = []
    for index in range(parser.num_errors):
        error: trt.ParserError = parser.get_error(index)
        found.append(f"{error.node_operator()} `{error.node_name()}`: {error.desc()}")
    return "; ".join(found) or "it does not say why"

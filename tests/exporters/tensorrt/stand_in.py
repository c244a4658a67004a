"""A stand-in for TensorRT and CUDA where there is no GPU: ``tensorrt`` and ``cuda.bindings.runtime`` of a few classes.

It has only names that TensorRT 10 and 11 both have, which `test_bindings.py` holds it to. Its engine is the graph, run
by ONNX Runtime; its device memory is the host's. It refuses what NVIDIA's documentation says that TensorRT refuses:
plans of another version, shapes outside the profile, a timing cache of another device.
"""

import ctypes
import enum
import json

import numpy as np
import onnx
import onnxruntime

from exporters.tensorrt.options import GRAPH

__version__ = "11.4.0"
# What a test may set.
UNSUPPORTED = set()
SILENT = None
CORES = 0
BUILT = []

NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["DETAILED"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"])
DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
OnnxParserFlag = enum.Enum("OnnxParserFlag", ["ADJUST_FOR_DLA"])
LayerInformationFormat = enum.Enum("LayerInformationFormat", ["JSON"])
BuilderFlag = enum.Enum(
    "BuilderFlag",
    ["TF32", "VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN", "REFIT_IDENTICAL", "SPARSE_WEIGHTS", "GPU_FALLBACK"],
)
_NAMES = {1: "Float", 10: "Half", 16: "BFloat16", 3: "Int8", 7: "Int64"}


class Logger:
    WARNING = 2

    def __init__(self, min_severity):
        pass


def nptype(kind):
    return kind


class ParserError:
    def __init__(self, node):
        self._node = node

    def desc(self):
        return "no importer is registered"

    def node_name(self):
        return self._node.name

    def node_operator(self):
        return self._node.op_type


class INetworkDefinition:
    def __init__(self, flags):
        self._flags, self._graph, self._parsers = flags, b"", []


class OnnxParser:
    def __init__(self, network, logger):
        self._network, self._errors, self._places, self._flags = network, [], [], []

    def set_flag(self, flag):
        self._flags.append(flag)

    def parse(self, graph):
        nodes = onnx.ModelProto.FromString(graph).graph.node
        self._errors = [ParserError(node) for node in nodes if node.op_type in UNSUPPORTED]
        self._network._graph = graph
        self._network._parsers = self._flags
        return not self._errors

    def supports_model_v2(self, graph):
        nodes = onnx.ModelProto.FromString(graph).graph.node
        self._places = [place for place, node in enumerate(nodes) if node.op_type in UNSUPPORTED]
        return not self._places

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]

    @property
    def num_subgraphs(self):
        # One with everything that is supported, and one for every node that is not.
        return 1 + len(self._places)

    def is_subgraph_supported(self, index):
        return index == 0

    def get_subgraph_nodes(self, index):
        return [self._places[index - 1]]


class ITimingCache:
    def __init__(self, content):
        self._content = content

    def serialize(self):
        return b"this device" + self._content


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, name, smallest, typical, largest):
        self._shapes[name] = [list(smallest), list(typical), list(largest)]


class IBuilderConfig:
    def __init__(self):
        self._settings = {"flags": {BuilderFlag.TF32}, "pools": {}}
        self._cache = None

    def set_flag(self, flag):
        self._settings["flags"].add(flag)

    def clear_flag(self, flag):
        self._settings["flags"].discard(flag)

    def set_memory_pool_limit(self, pool, size_bytes):
        self._settings["pools"][pool.name] = size_bytes

    def add_optimization_profile(self, profile):
        rising = all(
            low <= best <= high for ends in profile._shapes.values() for low, best, high in zip(*ends, strict=True)
        )
        self._settings["profile"] = profile._shapes
        return 0 if rising else -1

    def create_timing_cache(self, content):
        return ITimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._cache = cache
        return not cache._content or cache._content.startswith(b"this device") or ignore_mismatch

    def get_timing_cache(self):
        return self._cache


class Builder:
    def __init__(self, logger):
        self.num_DLA_cores = CORES

    def create_network(self, flags):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        settings = config._settings
        flags = sorted(flag.name for flag in settings["flags"])
        chosen = {name: getattr(value, "name", value) for name, value in vars(config).items() if name[0] != "_"}
        built = {
            "network_flags": network._flags,
            "parser_flags": [flag.name for flag in network._parsers],
            "flags": flags,
            "pools": settings["pools"],
            "profile": settings["profile"],
            **chosen,
        }
        BUILT.append(built)
        head = json.dumps({**built, "version": __version__}).encode()
        return head + b"\n" + (b"" if "STRIP_PLAN" in flags else network._graph)


class Runtime:
    def __init__(self, logger):
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan):
        head, _, graph = plan.partition(b"\n")
        settings = json.loads(head)
        compatible = self.engine_host_code_allowed and "VERSION_COMPATIBLE" in settings["flags"]
        return ICudaEngine(settings, graph) if settings["version"] == __version__ or compatible else None


class ICudaEngine:
    def __init__(self, settings, graph):
        self._settings, self._graph = settings, graph

    def get_tensor_dtype(self, name):
        model = onnx.ModelProto.FromString(self._graph)
        values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        return onnx.helper.tensor_dtype_to_np_dtype(values[name].type.tensor_type.elem_type)

    def create_execution_context(self):
        return IExecutionContext(self)

    def create_engine_inspector(self):
        return EngineInspector(self)


class OnnxParserRefitter:
    def __init__(self, refitter, logger):
        self._engine, self._errors = refitter._engine, []

    def refit_from_file(self, path):
        with open(path, "rb") as file:  # noqa: PTH123
            self._engine._graph = file.read()
        return path.endswith(GRAPH)

    @property
    def num_errors(self):
        return len(self._errors)

    def get_error(self, index):
        return self._errors[index]


class Refitter:
    def __init__(self, engine, logger):
        self._engine = engine

    def refit_cuda_engine(self):
        return bool(self._engine._graph)


class EngineInspector:
    def __init__(self, engine):
        self._engine, self.execution_context = engine, None

    def get_engine_information(self, form):
        model = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(self._engine._graph))
        kinds = {
            value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)
        }
        dequantised = {
            name: 3 for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output
        }
        layers = []
        for node in model.graph.node:
            name = SILENT or _NAMES[(kinds | dequantised).get(node.input[0], 1)]
            known = bool(self.execution_context and self.execution_context._shapes)
            old = {"Format/Datatype": f"Row major linear {name} format" if known else "N/A due to dynamic shapes"}
            tensor = old if __version__.startswith("10") else {"Format": "kLINEAR", "DataType": name}
            kind = (
                "CaskConvolution"
                if node.op_type == "Conv"
                else "gemm"
                if node.op_type in ("Gemm", "MatMul")
                else "kgen"
            )
            layers.append({"Name": node.name, "LayerType": kind, "Inputs": [{"Name": node.input[0], **tensor}]})
        tensors = {"Bindings": []} if __version__.startswith("10") else {"I/O Tensors": []}
        return json.dumps({"Layers": layers, **tensors})


class IProfiler:
    pass


class IExecutionContext:
    profiler = None

    def __init__(self, engine):
        self._engine, self._shapes, self._addresses, self._outputs = engine, {}, {}, {}

    def set_input_shape(self, name, shape):
        low, _, high = self._engine._settings["profile"][name]
        self._shapes[name] = shape
        return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return True

    def infer_shapes(self):
        session = onnxruntime.InferenceSession(self._engine._graph)
        feeds = {}
        for value in session.get_inputs():
            array = np.empty(self._shapes[value.name], self._engine.get_tensor_dtype(value.name))
            ctypes.memmove(array.ctypes.data, self._addresses[value.name], array.nbytes)
            feeds[value.name] = array
        names = [value.name for value in session.get_outputs()]
        self._outputs = dict(zip(names, session.run(names, feeds), strict=True))
        return []

    def get_tensor_shape(self, name):
        return self._outputs[name].shape

    def execute_async_v3(self, stream):
        for name, array in self._outputs.items():
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
        if self.profiler is not None:
            for node in onnx.ModelProto.FromString(self._engine._graph).graph.node:
                self.profiler.report_layer_time(node.name, 0.25)
        return stream == CudaRuntime.STREAM


class CudaRuntime:
    """What `exporters.tensorrt.memory` uses of ``cuda.bindings.runtime``."""

    STREAM = 7
    cudaError_t = enum.Enum("cudaError_t", ["cudaSuccess", "cudaErrorMemoryAllocation"])  # noqa: N815
    cudaMemcpyKind = enum.Enum("cudaMemcpyKind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"])  # noqa: N815

    cudaStreamCaptureMode = enum.Enum("cudaStreamCaptureMode", ["cudaStreamCaptureModeThreadLocal"])  # noqa: N815

    def __init__(self, largest_bytes=2**30):
        self.held, self.largest_bytes, self.streams = {}, largest_bytes, 0
        self.events, self.clock_ms, self.launched = [], 0.0, []

    def _done(self, *values):
        return (self.cudaError_t.cudaSuccess, *values)

    def cudaStreamCreate(self):  # noqa: N802
        self.streams += 1
        return self._done(self.STREAM)

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return self._done()

    def cudaStreamDestroy(self, stream):  # noqa: N802
        self.streams -= 1
        return self._done()

    def cudaMalloc(self, size_bytes):  # noqa: N802
        if size_bytes > self.largest_bytes:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(size_bytes)
        self.held[ctypes.addressof(buffer)] = buffer
        return self._done(ctypes.addressof(buffer))

    def cudaFree(self, address):  # noqa: N802
        del self.held[address]
        return self._done()

    def cudaMemcpyAsync(self, target, source, size_bytes, kind, stream):  # noqa: N802
        ctypes.memmove(target, source, size_bytes)
        return self._done()

    def cudaEventCreate(self):  # noqa: N802
        self.events.append(None)
        return self._done(len(self.events) - 1)

    def cudaEventRecord(self, event, stream):  # noqa: N802
        self.clock_ms += 0.25
        self.events[event] = self.clock_ms
        return self._done()

    def cudaEventElapsedTime(self, first, second):  # noqa: N802
        return self._done(self.events[second] - self.events[first])

    def cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert mode == self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        return self._done()

    def cudaStreamEndCapture(self, stream):  # noqa: N802
        return self._done("graph")

    def cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        return self._done(f"launchable {graph}")

    def cudaGraphLaunch(self, launchable, stream):  # noqa: N802
        self.launched.append((launchable, stream))
        return self._done()

    def cudaGetErrorString(self, status):  # noqa: N802
        return self._done(b"out of memory")

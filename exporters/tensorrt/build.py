"""Build the TensorRT engine of an export, on the machine that will run it: ``python build.py`` in its folder.

It reads ``build.json`` and ``model.onnx`` and writes

- ``model.engine``, the plan,
- ``model.engine.json``, what was built, from what, by what, where, and the types in which it computes,
- ``model.layers.json``, the layers as TensorRT's engine inspector describes them,
- a timing cache, which makes the next build for the same GPU faster.

An engine that does not compute in the precision that was asked for is an error and is not kept.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.tensorrt.engine import describe_device, inspect_engine, load_engine, load_tensorrt, parser_errors
from exporters.tensorrt.inspector import audit_layers, check_precision
from exporters.tensorrt.options import (
    ENGINE,
    GRAPH,
    LAYERS,
    RECORD,
    SPECIFICATION,
    BuildError,
    BuildOptions,
    UnavailableError,
)

if TYPE_CHECKING:
    import tensorrt as trt


def build_engine(folder: Path) -> dict[str, Any]:
    """Build the engine of an export.

    Args:
        folder: Holds ``build.json`` and ``model.onnx``; the results are written beside them.

    Returns:
        The content of ``model.engine.json``.

    Raises:
        BuildError: If there is no TensorRT or no GPU, the graph was changed, TensorRT refuses it, or the engine does
            not compute in the precision that was asked for.
    """
    specification = json.loads((folder / SPECIFICATION).read_text(encoding="utf-8"))
    if _sha256(folder / GRAPH) != specification["onnx_sha256"]:
        raise BuildError(f"{GRAPH} must be as it was exported, got other content in {folder}; export it again.")
    tensorrt = load_tensorrt()
    device = describe_device()
    options = BuildOptions(**specification["options"])
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    cache = Path(options.timing_cache or folder / f"timing-{tensorrt.__version__}-{_slug(device['name'])}.cache")
    start = time.monotonic()
    plan = _Build(tensorrt, logger, folder, specification, options).run(cache)
    seconds = time.monotonic() - start
    engine = load_engine(tensorrt, logger, plan, graph=folder / GRAPH, options=options)
    layers = inspect_engine(tensorrt, engine, specification["profiles"])
    audit = audit_layers(layers, specification["precision"])
    check_precision(audit, specification["precision"])
    record = {
        "onnx_sha256": specification["onnx_sha256"],
        "engine_sha256": hashlib.sha256(plan).hexdigest(),
        "size_bytes": len(plan),
        "precision": specification["precision"],
        "tensorrt": tensorrt.__version__,
        "device": device,
        "options": asdict(options),
        "profiles": specification["profiles"],
        "timing_cache": {"path": str(cache), "sha256": _sha256(cache)},
        "build_seconds": round(seconds, 3),
        "audit": audit,
    }
    _replace(folder / LAYERS, json.dumps(layers, indent=1).encode())
    _replace(folder / ENGINE, plan)
    _replace(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return record


@dataclass(frozen=True)
class _Build:
    tensorrt: Any
    logger: "trt.Logger"
    folder: Path
    specification: Mapping[str, Any]
    options: BuildOptions

    def run(self, cache: Path) -> bytes:
        builder = self._builder()
        network = self._parse(builder)
        config: trt.IBuilderConfig = builder.create_builder_config()
        self._configure(config)
        self._place(builder, config)
        self._shape(builder, config)
        measured = cache.read_bytes() if cache.exists() else b""
        if not config.set_timing_cache(config.create_timing_cache(measured), False):
            raise BuildError(f"{cache} must be of this TensorRT and GPU, but it is of others; delete it.")
        plan: trt.IHostMemory = builder.build_serialized_network(network, config)
        if plan is None:
            raise BuildError("TensorRT must build an engine, but it built none; its messages above say why.")
        _replace(cache, bytes(config.get_timing_cache().serialize()))
        return bytes(plan)

    def _builder(self) -> "trt.Builder":
        try:
            builder: trt.Builder = self.tensorrt.Builder(self.logger)
        except (TypeError, RuntimeError) as error:
            raise UnavailableError(f"TensorRT must find a usable GPU, but its builder says: {error}") from error
        return builder

    def _network(self, builder: "trt.Builder") -> "trt.INetworkDefinition":
        # TensorRT 11 knows strongly typed networks only and ignores the flag.
        flag = self.tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network: trt.INetworkDefinition = builder.create_network(1 << int(flag))
        return network

    def _parser(self, network: "trt.INetworkDefinition") -> "trt.OnnxParser":
        parser: trt.OnnxParser = self.tensorrt.OnnxParser(network, self.logger)
        flags = self.tensorrt.OnnxParserFlag
        # TensorRT 10 on JetPack 6, whose DLA this is for, does not have it yet.
        if self.options.dla_core is not None and "ADJUST_FOR_DLA" in flags.__members__:
            parser.set_flag(flags.ADJUST_FOR_DLA)
        return parser

    def _parse(self, builder: "trt.Builder") -> "trt.INetworkDefinition":
        graph = (self.folder / GRAPH).read_bytes()
        network = self._network(builder)
        parser = self._parser(network)
        if not parser.parse(graph):
            # The question changes the network that it is asked about.
            asked = self._parser(self._network(builder))
            asked.supports_model_v2(graph)
            nodes = list(dict.fromkeys(_unsupported(asked, self.specification["nodes"])))
            lacking = f" It does not support: {', '.join(nodes[:10])}." if nodes else ""
            raise BuildError(f"TensorRT must parse the graph, but {parser_errors(parser)}.{lacking}")
        return network

    def _configure(self, config: "trt.IBuilderConfig") -> None:
        flags, options = self.tensorrt.BuilderFlag, self.options
        config.profiling_verbosity = self.tensorrt.ProfilingVerbosity.DETAILED
        config.builder_optimization_level = options.optimization_level
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(self.tensorrt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        config.clear_flag(flags.TF32)  # on by default
        wanted = (
            (flags.TF32, options.tf32),
            (flags.VERSION_COMPATIBLE, options.version_compatible),
            (flags.REFIT, options.weights == "refittable"),
            (flags.STRIP_PLAN, options.weights == "stripped"),
            (flags.REFIT_IDENTICAL, options.weights == "stripped"),
            (flags.SPARSE_WEIGHTS, options.sparse_weights),
        )
        for flag, on in wanted:
            if on:
                config.set_flag(flag)
        if options.hardware == "ampere_plus":
            config.hardware_compatibility_level = self.tensorrt.HardwareCompatibilityLevel.AMPERE_PLUS
        elif options.hardware == "same_compute_capability":
            config.hardware_compatibility_level = self.tensorrt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY

    def _place(self, builder: "trt.Builder", config: "trt.IBuilderConfig") -> None:
        core = self.options.dla_core
        if core is None:
            return
        if core >= builder.num_DLA_cores:
            raise BuildError(f"`dla_core` must be below {builder.num_DLA_cores}, the cores of this device, got {core}.")
        config.default_device_type = self.tensorrt.DeviceType.DLA
        config.DLA_core = core
        if self.options.gpu_fallback:
            config.set_flag(self.tensorrt.BuilderFlag.GPU_FALLBACK)

    def _shape(self, builder: "trt.Builder", config: "trt.IBuilderConfig") -> None:
        profile: trt.IOptimizationProfile = builder.create_optimization_profile()
        for name, shapes in self.specification["profiles"].items():
            profile.set_shape(name, tuple(shapes["min"]), tuple(shapes["opt"]), tuple(shapes["max"]))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"TensorRT must take the shapes {self.specification['profiles']}, but it refused them.")


def _unsupported(parser: "trt.OnnxParser", nodes: list[str]) -> Iterator[str]:
    for index in range(parser.num_subgraphs):
        if not parser.is_subgraph_supported(index):
            yield from (nodes[place] for place in parser.get_subgraph_nodes(index))


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is complete whenever it is there."""
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def main(folder: Path) -> int:
    """Build the engine of a folder and say what was built, as JSON; 1 if it cannot be built, with the reason."""
    argparse.ArgumentParser(description="Build the TensorRT engine of this folder.", allow_abbrev=False).parse_args()
    try:
        record = build_engine(folder)
    except (BuildError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    return 0

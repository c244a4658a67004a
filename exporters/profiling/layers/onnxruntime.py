"""ONNX Runtime's own profiler."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.profiling.layers.recording import (
    MICROSECONDS_PER_MILLISECOND,
    Recording,
    Request,
    mean_run_ms,
    module_in,
)
from exporters.profiling.layers.result import LayerTime
from exporters.sessions.onnxruntime import OnnxRuntimeSession, import_onnx, open_file

_SUFFIX = "_kernel_time"
_BLOCKED = "_nchwc"


def record(request: Request) -> Recording:
    """Run with the profiler on and read the trace that it writes.

    Args:
        request: What to record.

    Returns:
        Every node that ONNX Runtime executed after its own optimisation, in order.

    Raises:
        ExportError: If the trace does not hold every run, as where it has outgrown the profiler.
        MissingRuntimeError: If the package onnx, which tells whose the optimised nodes are, is not installed.
    """
    module_of = _module_lookup(request.artifact)
    with tempfile.TemporaryDirectory() as folder:
        session = open_file(
            str(request.artifact.path), threads=request.threads, trace=Path(folder) / request.artifact.path.stem
        )
        run = partial(session.run, [spec.name for spec in request.artifact.outputs], dict(request.inputs))
        mean_run_ms(run, request.warm_up_runs)
        run_ms = mean_run_ms(run, request.runs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times_us = _sums_of_nodes(events, request)
    layers = [
        LayerTime(
            name=name,
            module=module_of(name),
            operator=operator,
            time_ms=total_us / request.runs / MICROSECONDS_PER_MILLISECOND,
        )
        for (name, operator), total_us in times_us.items()
    ]
    properties = OnnxRuntimeSession(request.artifact, threads=request.threads, precision="fp32").properties
    return Recording(layers, run_ms, properties)


def _sums_of_nodes(events: Iterable[Mapping[str, Any]], request: Request) -> dict[tuple[str, str], int]:
    """Microseconds of each node and operator in the runs that count, together."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith(_SUFFIX)]
    if len(starts) != request.warm_up_runs + request.runs:
        raise ExportError(
            f"`runs` must fit into ONNX Runtime's trace, got {request.warm_up_runs + request.runs} runs with the "
            f"warm-up, of which it holds {len(starts)}; ask for fewer."
        )
    sums: dict[tuple[str, str], int] = {}
    for event in nodes:
        if event["ts"] >= starts[request.warm_up_runs]:
            key = event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]
            sums[key] = sums.get(key, 0) + event["dur"]
    return sums


def _module_lookup(artifact: Artifact) -> Callable[[str], str | None]:
    """From the name of an executed node to a module.

    Nodes that ONNX Runtime rewrites for blocked layouts are called after the value that they compute, behind the
    convolution and what was fused into it.
    """
    graph = import_onnx("profile layers").load(artifact.path, load_external_data=False).graph
    makers = {value: node for node in graph.node for value in node.output}

    def module_of(name: str) -> str | None:
        maker = makers.get(name.removesuffix(_BLOCKED)) if name.endswith(_BLOCKED) else None
        while maker is not None and maker.op_type != "Conv":
            maker = makers.get(maker.input[0]) if maker.input else None
        return module_in(name if maker is None else maker.name)

    return module_of

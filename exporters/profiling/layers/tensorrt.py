"""TensorRT's profiler, which it calls after every layer."""

import re
from functools import partial

from exporters.profiling.layers.recording import Recording, Request, mean_run_ms
from exporters.profiling.layers.result import LayerTime
from exporters.sessions.tensorrt import TensorRTSession

_FIRST_NODE = re.compile(r"(?:\w+\()*([\w.]*)/")


def record(request: Request) -> Recording:
    """Run with a profiler attached, which makes TensorRT wait for the GPU after every run.

    Args:
        request: What to record.

    Returns:
        Every layer of the engine, in order; a layer fused of several belongs to the module of the first.
    """
    session = TensorRTSession(request.artifact, threads=request.threads, precision="fp32")
    run = partial(session.run, request.inputs)
    mean_run_ms(run, request.warm_up_runs)
    times_ms: dict[str, float] = {}

    def add(name: str, time_ms: float) -> None:
        times_ms[name] = times_ms.get(name, 0.0) + time_ms

    session.report_layers_to(add)
    run_ms = mean_run_ms(run, request.runs)
    layers = [
        LayerTime(name=name, module=module_of(name), operator="layer", time_ms=total_ms / request.runs)
        for name, total_ms in times_ms.items()
    ]
    return Recording(layers, run_ms, session.properties)


def module_of(layer: str) -> str | None:
    """Module of the first node in the name of a layer; ``None`` in a name that TensorRT made up.

    Example:
        >>> [module_of(name) for name in ("stem.0/getitem + stem.2/relu", "PWN(head/tanh)", "{ForeignNode[a/b...c/d]}")]
        ['stem.0', 'head', None]
    """
    found = _FIRST_NODE.match(layer)
    return found[1] if found else None

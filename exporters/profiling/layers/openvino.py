"""OpenVINO's performance counters."""

from functools import partial

from exporters.profiling.layers.recording import (
    MICROSECONDS_PER_MILLISECOND,
    Recording,
    Request,
    mean_run_ms,
    module_in,
)
from exporters.profiling.layers.result import LayerTime
from exporters.sessions.openvino import OpenVINOSession


def record(request: Request) -> Recording:
    """Count the time of every operation of a copy that is compiled with the session's settings.

    OpenVINO gives the mean over all runs since it compiled, in whole microseconds. The warm-up is taken out of it.

    Args:
        request: What to record.

    Returns:
        Every operation, those that OpenVINO fused into others or left out with a time of 0.
    """
    session = OpenVINOSession(request.artifact, threads=request.threads, precision="fp32")
    counting = session.counting_request()
    run = partial(counting.infer, dict(request.inputs), share_inputs=True)
    mean_run_ms(run, request.warm_up_runs)
    warm_us = [counter.real_time.total_seconds() * 1e6 for counter in counting.get_profiling_info()]
    run_ms = mean_run_ms(run, request.runs)
    layers = []
    for counter, before_us in zip(counting.get_profiling_info(), warm_us, strict=True):
        mean_us = counter.real_time.total_seconds() * 1e6
        all_us = mean_us * (request.warm_up_runs + request.runs) - before_us * request.warm_up_runs
        layers.append(
            LayerTime(
                name=counter.node_name,
                module=module_in(counter.node_name),
                operator=f"{counter.node_type} ({counter.exec_type})",
                time_ms=max(0.0, all_us / request.runs) / MICROSECONDS_PER_MILLISECOND,
            )
        )
    return Recording(layers, run_ms, session.properties)

"""ExecuTorch's event tracer, whose record it calls ETDump."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporters.errors import ArtifactError, PlatformError
from exporters.profiling.layers.recording import Recording, Request, mean_run_ms
from exporters.profiling.layers.result import LayerTime
from exporters.profiling.runner.units import NANOSECONDS_PER_MILLISECOND
from exporters.quiet import errors_only
from exporters.sessions.executorch import ExecuTorchSession

with errors_only():
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc
    from executorch.runtime import Program, Runtime

_RUN = "Execute"
_KERNEL = "native_call_"
_DELEGATE = "DELEGATE_CALL"


def record(request: Request) -> Recording:
    """Run with the event tracer on.

    A ``.pte`` file does not say which module an operation comes from. XNNPACK counts whole microseconds.

    Args:
        request: What to record.

    Returns:
        Every operation inside the delegate and every call of ExecuTorch's own kernels, in order.

    Raises:
        PlatformError: If the installed runtime was built without the event tracer.
    """
    session = ExecuTorchSession(request.artifact, threads=request.threads, precision="fp32")
    try:
        # The session has set the pool of threads; this program shares it.
        program = Runtime.get().load_program(request.artifact.path, enable_etdump=True)
        method = program.load_method("forward")
    except RuntimeError as error:
        raise ArtifactError(
            f"`path` must be a file that ExecuTorch loads, got {request.artifact.path}: {error}"
        ) from error
    arrays = [np.require(request.inputs[spec.name], requirements=("C", "W")) for spec in request.artifact.inputs]
    run = partial(method.execute, [torch.from_numpy(array) for array in arrays])
    mean_run_ms(run, request.warm_up_runs)
    run_ms = mean_run_ms(run, request.runs)
    times_ns: dict[str, int] = {}
    for name, time_ns in _operations(_executions(program)[-request.runs :]):
        times_ns[name] = times_ns.get(name, 0) + time_ns
    layers = [
        LayerTime(
            name=name,
            module=None,
            operator=re.sub(r" #\d+$", "", name),
            time_ms=total_ns / request.runs / NANOSECONDS_PER_MILLISECOND,
        )
        for name, total_ns in times_ns.items()
    ]
    return Recording(layers, run_ms, session.properties)


def _executions(program: Program) -> list[Any]:
    """The record of every run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.etdp"
        program.write_etdump_result_to_file(str(path), str(Path(folder) / "debug.bin"))
        content = path.read_bytes() if path.exists() else b""
    if not content:
        raise PlatformError(
            "the installed ExecuTorch must have been built with its event tracer to profile layers, got none; "
            "build it with EXECUTORCH_ENABLE_EVENT_TRACER=ON."
        )
    with errors_only():
        return [block for block in deserialize_from_etdump_flatcc(content).run_data if block.name == _RUN]


def _operations(executions: Iterable[Any]) -> Iterator[tuple[str, int]]:
    """Names and times in ns: operations of delegates that report any, else whole delegates, and kernel calls."""
    for execution in executions:
        events = [event.profile_event for event in execution.events if event.profile_event is not None]
        reporting = {event.instruction_id for event in events if event.delegate_debug_id_str}
        for event in events:
            time_ns = event.end_time - event.start_time
            if event.delegate_debug_id_str:
                yield _within(event, f"{event.delegate_debug_id_str}"), time_ns
            elif event.name == _DELEGATE and event.instruction_id not in reporting:
                yield _within(event, "delegate"), time_ns
            elif event.name and event.name.startswith(_KERNEL):
                yield _within(event, event.name.removeprefix(_KERNEL)), time_ns


def _within(event: Any, name: str) -> str:
    """A name that is the only one of its kind: delegates number their operations themselves, each from 1."""
    return name if event.instruction_id == 0 and " #" in name else f"{name}, instruction {event.instruction_id}"

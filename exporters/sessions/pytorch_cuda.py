"""PyTorch on an NVIDIA GPU, timed by the GPU's own clock beside the host's."""

import copy
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from exporters.errors import PlatformError
from exporters.network import Network
from exporters.sessions.pytorch import Forward, compile_forward
from exporters.signature import TensorSpec

# PyTorch's advice before a recording, so that libraries choose their kernels and allocate before it.
RUNS_BEFORE_RECORDING = 3
NANOSECONDS_PER_MILLISECOND = 1e6


class Recording(NamedTuple):
    """Launches for one set of shapes, recorded.

    Args:
        replay: Launches all of them in one call.
        inputs: Where it reads.
        outputs: Where it writes.
    """

    replay: Callable[[], None]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CudaPyTorchSession:
    """A network run by PyTorch on the first GPU in float32.

    A run copies the inputs to the GPU, computes, copies the outputs back and waits for them.

    Args:
        network: The network; a copy goes to the GPU.
        compiled: Whether `torch.compile` compiles it.
        cuda_graph: Whether the launches are recorded once per set of shapes and replayed.

    Raises:
        PlatformError: If there is no GPU, or no compiler to compile with.
        CaptureError: If the network is to be compiled and is more than one graph.
    """

    def __init__(self, network: Network, *, compiled: bool = False, cuda_graph: bool = False) -> None:
        if not torch.cuda.is_available():
            raise PlatformError("`device` must be 'cpu' where PyTorch finds no NVIDIA GPU, got 'cuda'.")
        self._signature = network.signature
        self.inputs: tuple[TensorSpec, ...] = network.signature.inputs
        self.outputs: tuple[TensorSpec, ...] = network.signature.outputs
        module = copy.deepcopy(network.module).to("cuda")
        self._forward: Forward = module
        if compiled:
            with torch.inference_mode():
                self._forward = compile_forward(module, tuple(tensor.to("cuda") for tensor in network.example))
        self._cuda_graph = cuda_graph
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}
        self._before, self._after = _event(), _event()
        self._enqueue_ns = 0
        mode = "compiled" if compiled else "eager"
        tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "pytorch",
            "runtime_version": torch.__version__,
            "device": torch.cuda.get_device_name(),
            "threads": 1,
            "mode": f"{mode} with CUDA graph" if cuda_graph else mode,
            "active_precision": "tf32" if tf32 else "fp32",
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        with torch.inference_mode():
            arrays = [np.require(inputs[spec.name], requirements="W") for spec in self.inputs]
            tensors = tuple(torch.from_numpy(array).to("cuda") for array in arrays)
            outputs = self._replayed(tensors) if self._cuda_graph else self._timed(lambda: self._forward(*tensors))
            # Copies to the host wait for everything before them.
            return {spec.name: output.cpu().numpy() for spec, output in zip(self.outputs, outputs, strict=True)}

    def last_parts_ns(self) -> dict[str, int]:
        """Times of the last run, ns: ``compute`` between two events on the GPU, ``enqueue`` of the launching call."""
        compute_ms: float = self._before.elapsed_time(self._after)
        return {"compute": round(compute_ms * NANOSECONDS_PER_MILLISECOND), "enqueue": self._enqueue_ns}

    def _timed(self, launch: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        self._before.record()
        start_ns = time.perf_counter_ns()
        outputs = launch()
        self._enqueue_ns = time.perf_counter_ns() - start_ns
        self._after.record()
        return outputs

    def _replayed(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes = tuple(tensor.shape for tensor in tensors)
        if shapes not in self._recordings:
            self._recordings[shapes] = self._record(tensors)
        recording = self._recordings[shapes]
        for target, tensor in zip(recording.inputs, tensors, strict=True):
            target.copy_(tensor)

        def launch() -> tuple[Tensor, ...]:
            recording.replay()
            return recording.outputs

        return self._timed(launch)

    def _record(self, tensors: tuple[Tensor, ...]) -> Recording:
        inputs = tuple(tensor.clone() for tensor in tensors)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(RUNS_BEFORE_RECORDING):
                self._forward(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._forward(*inputs)
        return Recording(graph.replay, inputs, outputs)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

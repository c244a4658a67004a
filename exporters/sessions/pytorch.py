"""PyTorch itself, so that it is verified against and profiled like any other runtime."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException

from exporters.errors import CaptureError, PlatformError
from exporters.network import Network
from exporters.threads import check_threads

Forward = Callable[..., tuple[Tensor, ...]]


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use ``count`` threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class PyTorchSession:
    """A network run by PyTorch on the CPU in float32.

    Args:
        network: The network.
        threads: Threads that one call may use; ``None`` keeps PyTorch's setting. The process's own setting is restored
            after every call.
        compiled: Whether `torch.compile` compiles it, as one graph, for the example's shapes now and for other shapes
            when they first come.

    Raises:
        ValueError: If ``threads`` is not a whole number from 1 to the number of available processors.
        PlatformError: If there is no compiler to compile with.
        CaptureError: If the network is more than one graph.
    """

    def __init__(self, network: Network, *, threads: int | None = None, compiled: bool = False) -> None:
        self._network = network
        self._threads = torch.get_num_threads() if threads is None else check_threads(threads)
        self._forward: Forward = network.module
        self.inputs = network.signature.inputs
        self.outputs = network.signature.outputs
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "pytorch",
            "runtime_version": torch.__version__,
            "device": "CPU",
            "threads": self._threads,
            "mode": "compiled" if compiled else "eager",
            "active_precision": "fp32",
        }
        if compiled:
            with torch.inference_mode(), torch_threads(self._threads):
                self._forward = compile_forward(network.module, network.example)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._network.signature.check(inputs)
        tensors = [torch.from_numpy(np.require(inputs[spec.name], requirements="W")) for spec in self.inputs]
        with torch.inference_mode(), torch_threads(self._threads):
            outputs = self._forward(*tensors)
        return {spec.name: output.numpy() for spec, output in zip(self.outputs, outputs, strict=True)}


def compile_forward(module: nn.Module, example: tuple[Tensor, ...]) -> Forward:
    """Compile a network, and run it once so that what is missing is said now.

    Args:
        module: The network, in evaluation mode.
        example: Inputs whose shapes it is compiled for.

    Returns:
        The compiled network, which compiles again for other shapes.

    Raises:
        PlatformError: If there is no compiler to compile with.
        CaptureError: If the network is more than one graph.
    """
    forward: Forward = torch.compile(module, fullgraph=True, dynamic=False)
    try:
        forward(*example)
    except BackendCompilerFailed as error:
        raise PlatformError(
            f"`compiled` must be False where torch.compile finds no working compiler (C++ for the CPU), but {error}; "
            f"install one, such as g++, or name it in the variable CXX."
        ) from error
    except TorchDynamoException as error:
        raise CaptureError(f"`model` must be one graph to be compiled, but torch.compile says: {error}") from error
    return forward

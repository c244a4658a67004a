"""PyTorch itself, so that eager execution is verified against and profiled like any other runtime."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from exporters.network import Network
from exporters.threads import check_threads


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
    """A network run eagerly by PyTorch on the CPU in float32.

    Args:
        network: The network.
        threads: Threads that one call may use; ``None`` keeps PyTorch's setting. The process's own setting is restored
            after every call.

    Raises:
        ValueError: If ``threads`` is not a whole number from 1 to the number of available processors.
    """

    def __init__(self, network: Network, *, threads: int | None = None) -> None:
        self._network = network
        self._threads = torch.get_num_threads() if threads is None else check_threads(threads)
        self.inputs = network.signature.inputs
        self.outputs = network.signature.outputs
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "pytorch",
            "runtime_version": torch.__version__,
            "device": "CPU",
            "threads": self._threads,
            "active_precision": "fp32",
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._network.signature.check(inputs)
        tensors = [torch.from_numpy(np.require(inputs[spec.name], requirements="W")) for spec in self.inputs]
        with torch.inference_mode(), torch_threads(self._threads):
            outputs = self._network.module(*tensors)
        return {spec.name: output.numpy() for spec, output in zip(self.outputs, outputs, strict=True)}

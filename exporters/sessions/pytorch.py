"""PyTorch itself, so that eager execution is verified against and profiled like any other runtime."""

from collections.abc import Mapping

import numpy as np
import torch

from exporters.network import Network
from exporters.threads import check_threads


class PyTorchSession:
    """A network run eagerly by PyTorch on the CPU, in the type of its module.

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
            "active_precision": {torch.float32: "fp32", torch.float16: "fp16"}[network.module.dtype],
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._network.signature.check(inputs)
        tensors = [torch.from_numpy(np.require(inputs[spec.name], requirements="W")) for spec in self.inputs]
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                outputs = self._network.module(*tensors)
        finally:
            torch.set_num_threads(before)
        return {spec.name: output.numpy() for spec, output in zip(self.outputs, outputs, strict=True)}

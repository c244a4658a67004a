"""A network computed as in float16, without float16 kernels: every intermediate value is rounded."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from exporters.capture import capture
from exporters.errors import ParityError
from exporters.layers import module_path
from exporters.network import Network
from exporters.parity import TOLERANCES, ParityReport, Tolerance, check_parity
from exporters.samples import verification_batches
from exporters.sessions.pytorch import PyTorchSession, torch_threads


class HalfSession:
    """A network whose weights and intermediate values are rounded to float16; each operator computes in float32.

    This is what a runtime with a float16 graph and float32 accumulators does. Runtimes without float16 kernels for the
    present processor keep some values in float32 and so hide an overflow that the device will have.

    Args:
        network: The network, in float32.
    """

    def __init__(self, network: Network) -> None:
        self._interpreter = _RoundingInterpreter(capture(network).run_decompositions({}).module())
        self._network = network
        self.inputs = network.signature.inputs
        self.outputs = network.signature.outputs
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "pytorch",
            "runtime_version": torch.__version__,
            "device": "CPU",
            "threads": 1,
            "active_precision": "fp16",
        }

    @property
    def first_overflow(self) -> str | None:
        """Module and operator that first made a value beyond float16 from finite ones; ``None`` if none did."""
        return self._interpreter.first_overflow

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._network.signature.check(inputs)
        tensors = [torch.from_numpy(np.require(inputs[spec.name], requirements="W")) for spec in self.inputs]
        # One thread: thousands of small steps gain nothing from more, and wait for each other on a busy machine.
        with torch.no_grad(), torch_threads(1):
            outputs = self._interpreter.run(*tensors)
        return {spec.name: output.numpy() for spec, output in zip(self.outputs, outputs, strict=True)}


def check_half(network: Network, *, tolerance: Tolerance = TOLERANCES["fp16"]) -> ParityReport:
    """Compare a network in float16 with the same in float32, both in PyTorch, on inputs other than the example.

    Args:
        network: The network, in float32.
        tolerance: Largest errors allowed.

    Returns:
        The figures, all within ``tolerance``.

    Raises:
        ParityError: If an output differs by more; the message names the first operator that overflowed.
    """
    session = HalfSession(network)
    batches = verification_batches(network.example_arrays, network.signature)
    try:
        return check_parity(session, PyTorchSession(network), batches, tolerance=tolerance)
    except ParityError as error:
        if session.first_overflow is None:
            raise
        raise ParityError(
            f"{error}\nThe first value beyond float16 is made by {session.first_overflow}; use precision='fp32' or "
            f"scale what goes into it."
        ) from error


class _RoundingInterpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.first_overflow: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in ("placeholder", "get_attr", "call_function"):
            return result
        rounded = fx.node.map_aggregate(result, _round)
        if self.first_overflow is None and _all_finite(result) and not _all_finite(rounded):
            self.first_overflow = f"`{module_path(n)}` ({n.target})"
        return rounded


def _round(value: Any) -> Any:
    return value.half().float() if isinstance(value, Tensor) and value.dtype == torch.float32 else value


def _all_finite(value: Any) -> bool:
    found: list[bool] = []
    fx.node.map_aggregate(value, lambda leaf: found.append(not isinstance(leaf, Tensor) or bool(leaf.isfinite().all())))
    return all(found)

"""One way to run a network, whatever the runtime: NumPy arrays in, NumPy arrays out, by name."""

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np

from exporters.errors import ExportError
from exporters.signature import TensorSpec

InferencePrecision = Literal["fp32", "default"]
"""``"fp32"``: the runtime may not compute below float32. ``"default"``: it computes in whatever type it picks."""


class Session(Protocol):
    """A loaded network, ready to run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def properties(self) -> Mapping[str, str | int | float]:
        """Settings in effect, read back from the runtime: at least the four below.

        ``runtime`` and ``runtime_version``; ``threads``, the number of threads that one call may use; and
        ``active_precision``, the type in which the network is computed (``"fp32"``, ``"fp16"``, ``"bf16"``). A session
        that computes what a runtime of another system would has ``stands_in_for``, that runtime's name: its numbers can
        be trusted, its latency says nothing.
        """

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch.

        Args:
            inputs: One array per entry of `inputs`, by name, of exactly its dtype and shape.

        Returns:
            One array per entry of `outputs`, by name.

        Raises:
            InputError: If names, dtypes or shapes do not fit.
            ExportError: If the runtime fails.
        """


def failed_run(runtime: str, inputs: Mapping[str, np.ndarray], error: BaseException) -> ExportError:
    """The error of a runtime that loaded a network and cannot run it.

    Args:
        runtime: Name of the runtime.
        inputs: What it was given.
        error: What it raised.
    """
    shapes = ", ".join(f"`{name}` of shape {array.shape}" for name, array in inputs.items())
    return ExportError(f"the network must run on {shapes}, but {runtime} failed: {error}")

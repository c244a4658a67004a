"""What computes the bulk of a ``.pte`` file: the delegates by name, and where each of them runs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch.export import ExportedProgram

from exporters.executorch.rewrites import rewrite_for_kernels, rewrite_for_xnnpack
from exporters.parity import Precision
from exporters.runtimes import import_runtime

Backend = Literal["coreml", "portable", "xnnpack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """One way to compute.

    Args:
        id: Name in the file and in the runtime's registry; ``None`` where the runtime's own kernels do everything.
        precisions: Types in which it can compute.
        partitioners: Makes the partitioners for a precision.
        rewrite: Prepares a captured program.
        rounds: Whether the delegate makes float16 of a float32 program by itself.
        runs_here: Whether the runtime that comes with the package can run it on this kind of machine.
    """

    id: str | None
    precisions: tuple[Precision, ...]
    partitioners: Callable[[Precision], Sequence[Any]]
    rewrite: Callable[[ExportedProgram], ExportedProgram] = lambda program: program
    rounds: bool = False
    runs_here: bool = True


def core_ml(name: str) -> Any:
    """A public name of the module for Core ML's delegate.

    Raises:
        MissingRuntimeError: If coremltools is not installed.
    """
    return import_runtime({"coreml": ("exporters.executorch.core_ml", name)}, "coreml")


def _core_ml_partitioners(precision: Precision) -> Sequence[Any]:
    return cast(Sequence[Any], core_ml("partitioners")(precision))


BACKENDS: Mapping[Backend, Delegate] = {
    "coreml": Delegate(
        id="CoreMLBackend",
        precisions=("fp32", "fp16"),
        partitioners=_core_ml_partitioners,
        rounds=True,
        runs_here=sys.platform == "darwin",
    ),
    "portable": Delegate(id=None, precisions=("fp32", "fp16"), partitioners=lambda _: [], rewrite=rewrite_for_kernels),
    "xnnpack": Delegate(
        id="XnnpackBackend",
        precisions=("fp32", "fp16", "int8"),
        partitioners=lambda _: [XnnpackPartitioner()],
        rewrite=rewrite_for_xnnpack,
    ),
}

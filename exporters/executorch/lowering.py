"""From a captured program to the bytes of a ``.pte`` file."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping

import torch
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch.export import ExportedProgram

from exporters.errors import ConversionError
from exporters.executorch.backends import BACKENDS, Backend
from exporters.network import TORCH_ERRORS
from exporters.parity import Precision
from exporters.quiet import errors_only, no_progress_bars

METADATA_METHOD = "exporters_metadata"


def lower(program: ExportedProgram, *, backend: Backend, precision: Precision, metadata: Mapping[str, str]) -> bytes:
    """Give what the delegate can compute to the delegate and the rest to ExecuTorch's own kernels.

    Args:
        program: What `torch.export` captured, in the types in which it is to be computed.
        backend: Name of the delegate.
        precision: Type in which the delegate computes.
        metadata: Text that the file returns as JSON from its method ``exporters_metadata``.

    Returns:
        The file's content.

    Raises:
        ConversionError: If ExecuTorch or the delegate refuses the graph.
    """
    delegate = BACKENDS[backend]
    constants = {METADATA_METHOD: json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    try:
        with declared_ranges_kept(), no_progress_bars(), errors_only("coremltools", "executorch"):
            edge = to_edge_transform_and_lower(
                delegate.rewrite(program),
                partitioner=delegate.partitioners(precision),
                constant_methods=constants,
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            return bytes(edge.to_executorch().buffer)
    except (*TORCH_ERRORS, NotImplementedError) as error:
        raise ConversionError(_reason(error, backend)) from error


@contextlib.contextmanager
def declared_ranges_kept() -> Iterator[None]:
    """Keep PyTorch's own choice of convolution kernels out of the ranges of dynamic dimensions.

    While a program is traced again, PyTorch asks which kernel it would use for each convolution: oneDNN for inputs of
    more than 20480 values, NNPACK for batches of at least 16. The answer becomes a guard, and a guard narrows the range
    that the lowered program accepts.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
            yield


def _reason(error: BaseException, backend: Backend) -> str:
    text = str(error).strip()
    if "only supports 1 dynamic dimension" in text:
        return (
            "`dimensions` must have one dynamic size per reshape for XNNPACK, but the network reshapes tensors with "
            "two or more; fix all but one of them, export one file per bucket of sizes, or use "
            "ExecuTorchExporter(backend='portable')."
        )
    return (
        f"`model` must be convertible to ExecuTorch with backend {backend!r}, but lowering raised "
        f"{type(error).__name__}: {text or 'without a message'}"
    )

"""One graph for all runtimes: a network captured by `torch.export`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import bound_sympy

from exporters.errors import CaptureError
from exporters.network import TORCH_ERRORS, Network
from exporters.plain import PlainOperators
from exporters.signature import BATCH, DimensionRange

_QUANTIZED = "quantized_decomposed"


def capture(network: Network) -> ExportedProgram:
    """Capture a network with the dynamic dimensions of its signature; a network is captured once.

    Where a size other than the batch cannot be declared by name, `torch.export` is left to find its constraints; what
    it found must still accept every declared size.

    Args:
        network: The network; it is captured in the type in which its module computes.

    Returns:
        The program. It accepts at least the sizes that the signature declares.

    Raises:
        CaptureError: If `torch.export` cannot follow the network's code, or the graph accepts fewer sizes than
            declared.
    """
    if not network.captured:
        program = _export(network)
        _check_ranges(network, program)
        network.captured.append(program)
    return network.captured[0]


def is_quantized(network: Network) -> bool:
    """Whether a network came with its ranges, after quantisation-aware training: its graph rounds by itself.

    One that cannot be captured is not; an exporter may trace it, and one that cannot says why.
    """
    try:
        nodes = capture(network).graph.nodes
    except CaptureError:
        return False
    return any(node.op == "call_function" and str(node.target).startswith(_QUANTIZED) for node in nodes)


def _export(network: Network) -> ExportedProgram:
    ranges = network.signature.dimensions
    try:
        return _export_with(network, {name: _named(name, sizes) for name, sizes in ranges.items()})
    except TORCH_ERRORS as error:
        if set(ranges) <= {BATCH}:
            raise _refusal(network, error) from error
    try:
        return _export_with(
            network,
            {
                name: _named(name, sizes) if name == BATCH else Dim.AUTO(min=sizes.smallest, max=sizes.largest)
                for name, sizes in ranges.items()
            },
        )
    except TORCH_ERRORS as error:
        raise _refusal(network, error) from error


def _refusal(network: Network, error: BaseException) -> CaptureError:
    reason = str(error).strip().partition("\n")[0]
    return CaptureError(
        f"`model` must be traceable by torch.export, but {type(network.module.module).__name__} raised "
        f"{type(error).__name__}: {reason} Take Python control flow that depends on tensor values, and batch sizes "
        f"written as numbers, out of its forward."
    )


def _named(name: str, sizes: DimensionRange) -> Any:
    if sizes.multiple == 1:
        return Dim(name, min=sizes.minimum, max=sizes.maximum)
    steps = Dim(f"{name}_steps", min=sizes.smallest // sizes.multiple, max=sizes.largest // sizes.multiple)
    return sizes.multiple * steps


def _export_with(network: Network, dimensions: Mapping[str, Any]) -> ExportedProgram:
    shapes = tuple(
        {axis: dimensions[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in network.signature.inputs
    )
    with torch.no_grad(), PlainOperators():
        return torch.export.export(network.module, network.example, dynamic_shapes=(shapes,))


def _check_ranges(network: Network, program: ExportedProgram) -> None:
    accepted = _input_shapes(program)
    for spec, shape in zip(network.signature.inputs, accepted, strict=True):
        for expected, size in zip(spec.shape, shape, strict=True):
            if isinstance(expected, int):
                continue
            declared = network.signature.dimensions[expected]
            found = _accepted(size, program)
            if found is None or not _covers(found, declared):
                raise CaptureError(
                    f"dimension `{expected}` of input `{spec.name}` must accept {declared}, but the network "
                    f"accepts {found or size}; declare that range, or remove the cause from its forward."
                )


def _accepted(size: Any, program: ExportedProgram) -> DimensionRange | None:
    """Sizes that a captured dimension accepts; ``None`` for a fixed one."""
    if not isinstance(size, torch.SymInt):
        return None
    expression = size.node.expr
    bounds = bound_sympy(expression, program.range_constraints)
    factor = expression.as_coeff_Mul()[0]
    low, high = (int(end) if math.isfinite(float(end)) else 2**63 - 1 for end in (bounds.lower, bounds.upper))
    return DimensionRange(low, high, multiple=int(factor))


def _covers(found: DimensionRange, declared: DimensionRange) -> bool:
    return (
        found.minimum <= declared.smallest
        and found.maximum >= declared.largest
        and declared.multiple % found.multiple == 0
    )


def _input_shapes(program: ExportedProgram) -> list[Sequence[int | torch.SymInt]]:
    names = set(program.graph_signature.user_inputs)
    return [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]

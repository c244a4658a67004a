"""Numbers of a written file against PyTorch, in the runtime that will load it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from exporters.artifact import Artifact
from exporters.network import TORCH_ERRORS, Network, as_type
from exporters.parity import TOLERANCES, ParityReport, Precision, Tolerance, check_parity, compare
from exporters.samples import verification_batches
from exporters.session import InferencePrecision, Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """What PyTorch's own rounding to ``dtype`` excuses: ``margin`` times its error, unless that is above ``most``."""

    dtype: torch.dtype
    margin: float
    most: float


# A runtime that sums in another order errs about as much as PyTorch does in float32, but where few roundings are left
# their chance differs more than where each weight adds one. Beyond `most` the figures say nothing of the conversion:
# rounding decides the outputs.
_ROUNDINGS: Mapping[Precision, _Rounding] = {
    "fp32": _Rounding(dtype=torch.float32, margin=4.0, most=1e-3),
    "fp16": _Rounding(dtype=torch.float16, margin=2.0, most=2e-2),
    "bf16": _Rounding(dtype=torch.bfloat16, margin=2.0, most=8e-2),
}


def verify_session(
    artifact: Artifact,
    network: Network,
    open_session: Callable[..., Session],
    *,
    tolerance: Tolerance,
    precision: InferencePrecision = "fp32",
) -> Artifact:
    """Run a written file and PyTorch on inputs other than the example.

    Args:
        artifact: The written file.
        network: What it has to compute.
        open_session: Opens the file: called with the artifact, ``threads`` and ``precision``.
        tolerance: Largest errors allowed.
        precision: Precision to open the session with.

    Returns:
        The artifact with the figures and the runtime that produced them.

    Raises:
        ParityError: If an output differs by more than ``tolerance``.
    """
    session = open_session(artifact, threads=available_threads(), precision=precision)
    report = check_parity(
        session, PyTorchSession(network), batches_for(network, artifact.precision), tolerance=tolerance
    )
    properties = session.properties
    return replace(
        artifact,
        parity=report,
        verified_on=f"{properties['runtime']} {properties['runtime_version']} on {properties['device']}",
    )


def batches_for(network: Network, precision: Precision) -> list[dict[str, np.ndarray]]:
    """Inputs to compare on: drawn ones and real ones; for int8 real ones alone, whose range its ranges were set by."""
    if precision == "int8" and network.samples:
        return [dict(sample) for sample in network.samples]
    return verification_batches(network.example_arrays, network.signature, samples=network.samples)


def rounding_tolerance(network: Network, report: ParityReport, precision: Precision) -> tuple[Tolerance, float] | None:
    """Bounds for a network that enlarges rounding errors, by what PyTorch itself loses in a precision to float64.

    Gates, divisions and differences of close values can enlarge rounding errors a hundredfold, so that a right file is
    as far from PyTorch as PyTorch is from the exact result. Such a file may differ by four times that distance in fp32,
    and by twice that of PyTorch's whole network in float16 or bfloat16 in fp16 or bf16.

    Args:
        network: The network.
        report: Figures beyond the bounds of the precision.
        precision: Precision of the file.

    Returns:
        Bounds that every figure in ``report`` is within, and PyTorch's own relative L2 error; ``None`` where rounding
        does not explain the figures, is beyond 1e-3 (fp32), 2e-2 (fp16) or 8e-2 (bf16), leaves the range of the type,
        or cannot be measured because PyTorch lacks an operator in that type or in float64.
    """
    rounding = _ROUNDINGS.get(precision)
    if rounding is None:
        return None
    batches = batches_for(network, precision)
    try:
        rounded, exact = (
            [session.run(batch) for batch in batches]
            for session in (PyTorchSession(as_type(network, dtype)) for dtype in (rounding.dtype, torch.float64))
        )
    except TORCH_ERRORS:
        return None
    names = [spec.name for spec in network.signature.outputs]
    own = [compare(name, [out[name] for out in rounded], [out[name] for out in exact]) for name in names]
    usual = TOLERANCES[precision]
    error = max(figures.relative_l2 for figures in own)
    of_range = max(figures.max_abs_of_range for figures in own)
    tolerance = Tolerance(
        relative_l2=_wider(usual.relative_l2, rounding.margin * error),
        max_abs_of_range=_wider(usual.max_abs_of_range, rounding.margin * of_range),
    )
    is_measured = error <= rounding.most and not any(figures.nonfinite for figures in own)
    explained = is_measured and all(figures.within(tolerance) for figures in report.outputs)
    return (tolerance, error) if explained else None


def _wider(usual: float | None, allowed: float) -> float | None:
    return None if usual is None else max(usual, allowed)

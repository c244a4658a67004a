"""Numbers of a written file against PyTorch, in the runtime that will load it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from exporters.artifact import Artifact
from exporters.network import TORCH_ERRORS, Network, as_type
from exporters.parity import TOLERANCES, ParityReport, Precision, Tolerance, check_parity, compare
from exporters.samples import verification_batches
from exporters.session import InferencePrecision, Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads

# A runtime that sums in another order errs about as much as PyTorch does; this many times its error is allowed.
_MARGIN = 4.0
# Beyond this fp32 says nothing of the conversion: rounding decides the outputs.
_MOST_ROUNDING = 1e-3


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


def rounding_tolerance(network: Network, report: ParityReport) -> tuple[Tolerance, float] | None:
    """Bounds on float32 for a network that enlarges rounding errors, by what PyTorch itself loses to float64.

    Gates, divisions and differences of close values can enlarge rounding errors a hundredfold, so that a right file is
    as far from PyTorch as PyTorch is from the exact result. Such a file may differ by four times that distance.

    Args:
        network: The network.
        report: Figures beyond the bounds of fp32.

    Returns:
        Bounds that every figure in ``report`` is within, and PyTorch's own relative L2 error; ``None`` where rounding
        does not explain the figures, is beyond 1e-3 or cannot be measured because the network has no float64 version.
    """
    batches = batches_for(network, "fp32")
    single = PyTorchSession(network)
    try:
        double = PyTorchSession(as_type(network, torch.float64))
        exact = [double.run(batch) for batch in batches]
    except TORCH_ERRORS:
        return None
    rounded = [single.run(batch) for batch in batches]
    names = [spec.name for spec in network.signature.outputs]
    own = [compare(name, [out[name] for out in rounded], [out[name] for out in exact]) for name in names]
    usual = TOLERANCES["fp32"]
    error = max(figures.relative_l2 for figures in own)
    of_range = max(figures.max_abs_of_range for figures in own)
    tolerance = Tolerance(
        relative_l2=max(usual.relative_l2 or 0.0, _MARGIN * error),
        max_abs_of_range=max(usual.max_abs_of_range or 0.0, _MARGIN * of_range),
    )
    explained = error <= _MOST_ROUNDING and all(figures.within(tolerance) for figures in report.outputs)
    return (tolerance, error) if explained else None

"""Numbers of a written file against PyTorch, in the runtime that will load it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from exporters.artifact import Artifact
from exporters.network import Network
from exporters.parity import Precision, Tolerance, check_parity
from exporters.samples import verification_batches
from exporters.session import InferencePrecision, Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads


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

"""Numbers of a written file against PyTorch, in the runtime that will load it."""

from collections.abc import Callable
from dataclasses import replace

from exporters.artifact import Artifact
from exporters.network import Network
from exporters.parity import TOLERANCES, check_parity
from exporters.samples import verification_batches
from exporters.session import Session
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads


def verify_session(artifact: Artifact, network: Network, open_session: Callable[..., Session]) -> Artifact:
    """Run a written file and PyTorch on inputs other than the example.

    Args:
        artifact: The written file.
        network: What it has to compute.
        open_session: Opens the file: called with the artifact, ``threads`` and ``precision``.

    Returns:
        The artifact with the figures and the runtime that produced them.

    Raises:
        ParityError: If an output differs by more than the tolerance of the artifact's precision.
    """
    session = open_session(artifact, threads=available_threads(), precision="fp32")
    batches = verification_batches(network.example_arrays, network.signature)
    report = check_parity(session, PyTorchSession(network), batches, tolerance=TOLERANCES[artifact.precision])
    properties = session.properties
    return replace(
        artifact,
        parity=report,
        verified_on=f"{properties['runtime']} {properties['runtime_version']} on {properties['device']}",
    )

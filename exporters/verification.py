"""Numbers of a written file against PyTorch, in the runtime that will load it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from exporters.artifact import Artifact
from exporters.network import Network, as_half
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
    report = check_parity(session, PyTorchSession(network), _batches(network), tolerance=TOLERANCES[artifact.precision])
    properties = session.properties
    return replace(
        artifact,
        parity=report,
        verified_on=f"{properties['runtime']} {properties['runtime_version']} on {properties['device']}",
    )


def verify_half(network: Network) -> str:
    """Run a network in float16 and in float32, both in PyTorch, to see whether it overflows.

    Runtimes without float16 kernels for this processor compute in float32 and so hide an overflow that the device will
    have; others do not run here at all.

    Args:
        network: The network, in float32.

    Returns:
        What was found, for the artifact's notes.

    Raises:
        ParityError: If an output in float16 differs by more than the tolerance.
    """
    half, full = PyTorchSession(as_half(network)), PyTorchSession(network)
    try:
        report = check_parity(half, full, _batches(network), tolerance=TOLERANCES["fp16"])
    except (RuntimeError, NotImplementedError) as error:  # an operator without a float16 kernel for this processor
        return f"Not checked for overflow in float16, because PyTorch cannot run it here: {error}"
    worst = max(output.relative_l2 for output in report.outputs)
    return f"PyTorch in float16 agrees with float32 to a relative L2 of {worst:.2g}."


def _batches(network: Network) -> list[dict[str, np.ndarray]]:
    specs = network.signature.inputs
    example = {spec.name: tensor.numpy() for spec, tensor in zip(specs, network.example, strict=True)}
    return verification_batches(example, network.signature)

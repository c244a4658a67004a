"""Teacher and student on the runtimes of this machine: exported, verified, run on the test images, timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import nn
from torch.utils.data import TensorDataset

import exporters
from exporters.artifact import Artifact
from exporters.parity import Precision
from exporters.profiling import Profile, ProfileOptions, profile
from exporters.runtimes import EXPORTERS, import_runtime
from exporters.session import Session

Name = Literal["teacher", "student"]
RUNTIMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO", "coreml": "Core ML"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One network to deploy in one form.

    Attributes:
        network: Which network.
        to: Format of `exporters.export`.
        precision: Precision of `exporters.export`.
    """

    network: Name
    to: Literal["onnx", "openvino", "coreml"]
    precision: Precision = "fp32"


TARGETS = (
    Target(network="teacher", to="onnx"),
    Target(network="teacher", to="openvino"),
    Target(network="student", to="onnx"),
    Target(network="student", to="openvino"),
    Target(network="student", to="openvino", precision="fp16"),
    Target(network="student", to="coreml"),
)
STEPS = 2 + len(TARGETS)
THREADS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A network in a runtime.

    Attributes:
        network: Which network.
        runtime: Name of the runtime.
        precision: Type of the weights.
        artifact: The exported file; ``None`` for PyTorch itself.
        accuracy: Accuracy of this file in this runtime on the test part, 0 to 1; ``None`` where it cannot run here.
        profile: Latency of one image; ``None`` where it cannot run here.
    """

    network: Name
    runtime: str
    precision: Precision
    artifact: Artifact | None
    accuracy: float | None
    profile: Profile | None

    @property
    def label(self) -> str:
        """Runtime, with the precision where it is not fp32."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime} {self.precision}"


def deploy(
    networks: Mapping[Name, nn.Module],
    test: TensorDataset,
    folder: Path,
    options: ProfileOptions,
    on_step: Callable[[], None],
) -> list[Deployment]:
    """Run both networks in PyTorch, and export, verify, evaluate and profile every target.

    Args:
        networks: Teacher and student.
        test: Images and labels.
        folder: Where the files go.
        options: How long to measure each.
        on_step: Called after every deployment; there are `STEPS` of them.

    Returns:
        The deployments, network by network.
    """
    found = []
    for name, network in networks.items():
        session = exporters.pytorch_session(network, test.tensors[0][:1], threads=THREADS)
        found.append(
            Deployment(
                network=name,
                runtime=RUNTIMES["pytorch"],
                precision="fp32",
                artifact=None,
                accuracy=session_accuracy(session, test),
                profile=profile(session, options=options),
            )
        )
        on_step()
        for target in TARGETS:
            if target.network == name:
                found.append(_deploy(target, network, test, folder, options))
                on_step()
    return found


def session_accuracy(session: Session, data: TensorDataset) -> float:
    """Fraction of images that a session classifies rightly, one image at a time, 0 to 1."""
    images, labels = data.tensors
    (given,), (answer,) = session.inputs, session.outputs
    answers = [session.run({given.name: image[None].numpy()})[answer.name].argmax() for image in images]
    return float(np.mean(np.equal(answers, labels.numpy())))


def _deploy(
    target: Target, network: nn.Module, test: TensorDataset, folder: Path, options: ProfileOptions
) -> Deployment:
    path = folder / f"{target.network}-{target.precision}{import_runtime(EXPORTERS, target.to)().suffix}"
    artifact = exporters.export(network, test.tensors[0][:1], to=target.to, path=path, precision=target.precision)
    session = exporters.load(artifact, threads=THREADS)
    in_its_runtime = "stands_in_for" not in session.properties
    return Deployment(
        network=target.network,
        runtime=RUNTIMES[target.to],
        precision=target.precision,
        artifact=artifact,
        accuracy=session_accuracy(session, test),
        profile=profile(artifact, threads=THREADS, options=options) if in_its_runtime else None,
    )

"""What the demo found, as rows for a table and as a JSON document."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.filesize import decimal

from exporters.artifact import Artifact
from exporters.profiling import Estimate, Machine
from lightning_kd.demo.deployment import Deployment
from lightning_kd.demo.training import Arm, Lesson, Trained

_HEADINGS = ("network", "runtime", "size", "accuracy", "p50, ms (95 % interval)", "p99, ms", "error / range")
DISTRIBUTIONS = ("lightning-kd", "torch", "lightning", "timm", "onnxruntime", "openvino", "coremltools", "numpy")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Everything the demo found.

    Attributes:
        lesson: How much was trained.
        trained: Networks, accuracies and similarities.
        deployments: Both networks in every runtime.
        machine: Where, read before training.
        seconds: Time from start to end, s.
    """

    lesson: Lesson
    trained: Trained
    deployments: list[Deployment]
    machine: Machine
    seconds: float

    @property
    def gain(self) -> float:
        """Mean accuracy that distillation added, in percentage points; negative where it did harm."""
        return 100 * (self.trained.distilled.mean - self.trained.alone.mean)

    @property
    def verdict(self) -> str:
        """What distillation did to the student's accuracy, as measured."""
        alone, distilled = percent(self.trained.alone), percent(self.trained.distilled)
        count = len(self.lesson.seeds)
        seeds = f"mean and standard deviation of {count} seeds" if count > 1 else "one seed, so without a spread"
        return f"Student without the teacher {alone}, with it {distilled}: {self.gain:+.1f} points ({seeds})."

    @property
    def headings(self) -> tuple[str, ...]:
        """Headings of `rows`."""
        return _HEADINGS

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """One row per deployment."""
        return [_row(deployment) for deployment in self.deployments]

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of Python and of every distribution that decides a figure."""
        return {"python": platform.python_version()} | {name: version(name) for name in DISTRIBUTIONS}

    def document(self) -> dict[str, Any]:
        """The result without networks and raw latencies; values are of JSON types."""
        trained = self.trained
        return {
            "lesson": asdict(self.lesson),
            "teacher_accuracy": trained.teacher_accuracy,
            "alone": _arm_document(trained.alone),
            "distilled": _arm_document(trained.distilled),
            "gain_points": self.gain,
            "pairs": [asdict(pair) for pair in trained.pairs],
            "deployments": [_deployment_document(deployment) for deployment in self.deployments],
            "machine": asdict(self.machine),
            "versions": dict(self.versions),
            "seconds": self.seconds,
        }


def percent(arm: Arm) -> str:
    """Mean accuracy with its standard deviation over the seeds.

    Example:
        >>> from lightning_kd.demo.training import Arm
        >>> percent(Arm(accuracies=[0.90, 0.92]))
        '91.0 ± 1.4 %'
    """
    return f"{100 * arm.mean:.1f} ± {100 * arm.spread:.1f} %" if len(arm.accuracies) > 1 else f"{100 * arm.mean:.1f} %"


def latency(estimate: Estimate | None) -> str:
    """A percentile with its interval, ms."""
    if estimate is None:
        return "too few runs"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def parity_text(artifact: Artifact | None) -> str:
    """Largest error as a fraction of the output's range; or what was checked where the file could not run."""
    if artifact is None:
        return "reference"
    if artifact.parity is None:
        return artifact.verified_on
    return f"{max(output.max_abs_of_range for output in artifact.parity.outputs):.1e}"


def _row(deployment: Deployment) -> tuple[str, ...]:
    artifact, profile = deployment.artifact, deployment.profile
    if profile is None:
        times = ("not run", "not run")
    else:
        p99 = profile.p99_ms
        times = latency(profile.p50_ms), "too few runs" if p99 is None else f"{p99.value:.3f}"
    return (
        deployment.network,
        deployment.label,
        "none" if artifact is None else decimal(artifact.size_bytes),
        "not run" if deployment.accuracy is None else f"{100 * deployment.accuracy:.1f} %",
        *times,
        parity_text(artifact),
    )


def _arm_document(arm: Arm) -> dict[str, Any]:
    return {"accuracies": arm.accuracies, "mean": arm.mean, "spread": arm.spread}


def _deployment_document(deployment: Deployment) -> dict[str, Any]:
    artifact, profile = deployment.artifact, deployment.profile
    return {
        "network": deployment.network,
        "runtime": deployment.runtime,
        "precision": deployment.precision,
        "accuracy": deployment.accuracy,
        "path": None if artifact is None else str(artifact.path),
        "size_bytes": None if artifact is None else artifact.size_bytes,
        "verified_on": None if artifact is None else artifact.verified_on,
        "parity": None if artifact is None or artifact.parity is None else asdict(artifact.parity),
        "latency": None if profile is None else profile.summary(),
    }

"""Core ML packages: run by Apple's runtime on macOS, and op by op in PyTorch elsewhere."""

import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from exporters.artifact import Artifact
from exporters.errors import ArtifactError, InputError
from exporters.mil.audit import lowest_precision
from exporters.mil.evaluator import Evaluator, Overflow
from exporters.mil.package import Package, read_package
from exporters.mil.toolkit import coremltools
from exporters.session import InferencePrecision, Session
from exporters.sessions.pytorch import torch_threads
from exporters.signature import Signature


class Saved(Protocol):
    """A package on disk: an artifact, or a part of one."""

    @property
    def path(self) -> Path:
        """The package folder."""

    @property
    def signature(self) -> Signature:
        """What it takes and returns."""


def open_session(artifact: Artifact, *, threads: int, precision: InferencePrecision) -> Session:
    """Open a package in Core ML on macOS, and in the evaluator elsewhere; ``properties["runtime"]`` says which."""
    if sys.platform == "darwin":
        return CoreMLSession(artifact, threads=threads, precision=precision)
    return EvaluatorSession(artifact, threads=threads, precision=precision)


class EvaluatorSession:
    """The saved program run op by op in PyTorch, in the types that the program declares.

    It says what the package computes, not how fast Core ML is.

    Args:
        saved: The package.
        threads: Threads that one call may use.
        precision: Makes no difference here; both mean the types of the program.

    Raises:
        ArtifactError: If the package cannot be read.
        ConversionError: If it has an operator that cannot be evaluated.
    """

    def __init__(self, saved: Saved, *, threads: int, precision: InferencePrecision) -> None:  # noqa: ARG002
        self._package = read_package(saved.path)
        self._evaluator = Evaluator(self._package.main)
        self._signature = saved.signature
        self._threads = threads
        self.inputs = saved.signature.inputs
        self.outputs = saved.signature.outputs
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "coreml-evaluator",
            "stands_in_for": "Core ML",
            "runtime_version": torch.__version__,
            "device": "CPU",
            "threads": threads,
            "active_precision": lowest_precision(self._package.main),
        }

    @property
    def first_overflow(self) -> Overflow | None:
        """The operator that first made a value which is not finite; ``None`` if none did."""
        return self._evaluator.first_overflow

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        found = self._run(inputs, lambda *_: None)
        return {spec.name: found[spec.name].numpy().astype(spec.dtype, copy=False) for spec in self.outputs}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the intermediate values of one batch.

        Args:
            inputs: As for `run`.

        Returns:
            Values by name in the program, which is that of the captured graph's node where the converter kept it.
        """
        values: dict[str, np.ndarray] = {}

        def observe(name: str, value: Tensor) -> None:
            values[node_name(name)] = value.numpy().copy()

        self._run(inputs, observe)
        return values

    def _run(self, inputs: Mapping[str, np.ndarray], observe: Callable[[str, Tensor], None]) -> dict[str, Tensor]:
        self._signature.check(inputs)
        check_sizes(self._package, inputs)
        tensors = {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in inputs.items()}
        with torch_threads(self._threads):
            return self._evaluator.run(tensors, observe)


class CoreMLSession:
    """A package in Apple's runtime; macOS only.

    Args:
        artifact: The exported package; its option ``compute_units`` says where it may run.
        threads: Core ML has no such setting: it decides by itself, and the property ``threads`` is 0.
        precision: Makes no difference here; both mean the types of the program.

    Raises:
        ArtifactError: If Core ML cannot load the package.
    """

    def __init__(self, artifact: Artifact, *, threads: int, precision: InferencePrecision) -> None:  # noqa: ARG002
        units = str(artifact.options["compute_units"])
        try:
            self._model = coremltools.models.MLModel(str(artifact.path), compute_units=coremltools.ComputeUnit[units])
        except RuntimeError as error:
            raise ArtifactError(f"`path` must be a package that Core ML loads, got {artifact.path}: {error}") from error
        self._package = read_package(artifact.path)
        self._signature = artifact.signature
        self.inputs = artifact.signature.inputs
        self.outputs = artifact.signature.outputs
        self.properties: Mapping[str, str | int | float] = {
            "runtime": "coreml",
            "runtime_version": f"macOS {platform.mac_ver()[0]}",
            "device": units,
            "threads": 0,
            "active_precision": lowest_precision(self._package.main),
        }

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of one batch; see `exporters.session.Session.run`."""
        self._signature.check(inputs)
        check_sizes(self._package, inputs)
        images = self._package.images
        found = self._model.predict(
            {name: as_image(array) if name in images else array for name, array in inputs.items()}
        )
        return {spec.name: np.asarray(found[spec.name], dtype=spec.dtype) for spec in self.outputs}


def node_name(name: str) -> str:
    """The captured graph's name of a value: the converter adds the type to which it was cast."""
    return name.removesuffix("_cast_fp16").removesuffix("_cast_fp32")


def check_sizes(package: Package, inputs: Mapping[str, np.ndarray]) -> None:
    """Raise `InputError` unless every input that enumerates its shapes has one of them."""
    for name, shapes in package.sizes.items():
        if inputs[name].shape not in shapes:
            raise InputError(f"input `{name}` must have one of the shapes {shapes}, got {inputs[name].shape}.")


def as_image(pixels: np.ndarray) -> Any:
    """The image that Core ML takes for pixels from 0 to 255 of shape (1, channels, height, width)."""
    from PIL import Image  # noqa: PLC0415 - on macOS only, where images are given to the real runtime

    channels = np.rint(pixels[0]).clip(0, 255).astype(np.uint8)
    return Image.fromarray(channels[0] if len(channels) == 1 else np.moveaxis(channels, 0, -1))

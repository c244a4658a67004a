"""Export to a Core ML program, whose numbers are checked on any system."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from exporters.artifact import Artifact
from exporters.coreml.checking import check_numbers
from exporters.coreml.compression import RECIPES, Compression, steps, write
from exporters.coreml.conversion import Settings, converted
from exporters.coreml.images import from_pixels
from exporters.coreml.naming import KeepFloat32, ModulePaths
from exporters.coreml.options import (
    ComputeUnits,
    DeploymentTarget,
    ImageInput,
    LinearWeights,
    Palette,
    Sparsity,
    check_choice,
)
from exporters.errors import ConversionError
from exporters.exporter import Conversion, Request
from exporters.integers import with_32_bit_integers
from exporters.mil.audit import audit_program, lowest_precision
from exporters.mil.package import read_package
from exporters.mil.toolkit import coremltools
from exporters.network import Network
from exporters.parity import Precision, Tolerance
from exporters.readback import check_signature
from exporters.sessions.coreml import open_session


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMLExporter:
    """Writes an ``.mlpackage`` folder that holds an ML program.

    Core ML runs on Apple's systems only. Elsewhere the written program is run op by op in PyTorch, in the types that it
    declares, and compared with the network.

    Args:
        minimum_deployment_target: Oldest system that loads the package; newer ones have more operators.
        compute_units: Where the package may run when it is loaded here; an app sets its own.
        image: An input that is filled from an image, and its normalisation.
        sizes: Whether the package accepts the ``"range"`` of dynamic sizes, or a list of all ``"enumerated"`` ones,
            which may run on the Neural Engine: give the dimension a ``multiple`` that keeps them few.
        keep_float32: What computes in float32 in an fp16 package: operators of MIL such as ``"square"``, or paths of
            modules such as ``"encoder.norm"``.
        weights: How ``precision="int8"`` stores weights; activations are float16. ``None`` tries whole numbers and
            palettes of 8 bits and takes what is closer to the network.
        sparsity: Which weights are left out, at any precision.

    Raises:
        ValueError: If an option is not one of its choices.

    Example:
        >>> CoreMLExporter(minimum_deployment_target="iOS18", weights=Palette(bits=6, group_size=16)).suffix
        '.mlpackage'
    """

    minimum_deployment_target: DeploymentTarget = "iOS17"
    compute_units: ComputeUnits = "ALL"
    image: ImageInput | None = None
    sizes: Literal["range", "enumerated"] = "range"
    keep_float32: tuple[str, ...] = ()
    weights: LinearWeights | Palette | None = None
    sparsity: Sparsity | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_choice("minimum_deployment_target", self.minimum_deployment_target, get_args(DeploymentTarget))
        check_choice("compute_units", self.compute_units, get_args(ComputeUnits))
        check_choice("sizes", self.sizes, ("range", "enumerated"))

    @property
    def format(self) -> str:
        """Name of the format."""
        return "coreml"

    @property
    def suffix(self) -> str:
        """Suffix of the package folder."""
        return ".mlpackage"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions of the packages."""
        return ("fp32", "fp16", "int8")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert."""
        return {package.__name__: str(package.__version__) for package in (torch, coremltools)}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        network = self._taken(network)
        keep = KeepFloat32(network, self.keep_float32)
        settings = Settings(
            target=self.minimum_deployment_target,
            half=None if request.precision == "fp32" else keep.is_half,
            enumerated=self.sizes == "enumerated",
            images={} if self.image is None else {self.image.name: self.image.layout},
        )
        with converted(network, settings) as (model, notes):
            if request.precision != "fp32":
                keep.check()
            model.user_defined_metadata.update(request.metadata)
            report = write(model, path, self._plans(request), network=network, request=request)
        return Conversion(
            notes=notes,
            quantization=report,
            details={"compute_units": self.compute_units, "kept_in_float32": keep.names},
        )

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check types, sizes and numbers of the written package; see `exporters.exporter.Exporter.verify`."""
        network = self._taken(network)
        artifact = replace(artifact, signature=network.signature)
        package = read_package(artifact.path)
        check_signature(network.signature, package.inputs, package.outputs)
        if artifact.quantization is not None and artifact.quantization.calibration is None:
            _check_activations(package.main)
        audit = audit_program(
            package.main, kept=artifact.details["kept_in_float32"], weights_only=artifact.precision == "int8"
        )
        audit = replace(audit, left_in_float=ModulePaths(network).named(audit.left_in_float))
        artifact = check_numbers(replace(artifact, audit=audit), network, open_session, tolerance=tolerance)
        notes = list(artifact.notes)
        if network.signature.dimensions and self.sizes == "range":
            notes.append("Ranges of sizes usually keep Core ML off the Neural Engine; enumerated or fixed ones do not.")
        return replace(artifact, notes=tuple(notes))

    def _plans(self, request: Request) -> dict[str, list[Compression]]:
        """What may be done to the weights, by recipe."""
        target = self.minimum_deployment_target
        if request.precision != "int8" or request.calibration is None:
            return {"none": steps(None, self.sparsity, target)}
        if self.weights is None:
            return {name: steps(weights, self.sparsity, target) for name, weights in RECIPES.items()}
        if request.quantization.recipe not in ("auto", self.weights.recipe):
            raise ConversionError(
                f"`recipe` must be 'auto' beside `weights`, got {request.quantization.recipe!r}; leave one of them out."
            )
        return {self.weights.recipe: steps(self.weights, self.sparsity, target)}

    def _taken(self, network: Network) -> Network:
        """The network as the package takes it: pixels for an image, 32-bit integers."""
        if self.image is not None:
            network = from_pixels(network, self.image)
        return with_32_bit_integers(network, runtime="Core ML", dtypes=("float32", "int32"))


def _check_activations(main: Any) -> None:
    """Raise unless a network that was trained for it computes in int8."""
    if lowest_precision(main) != "int8":
        raise ConversionError(
            "the package must compute in int8 as the network was trained to, but it quantises no activation."
        )

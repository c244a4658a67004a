"""Export to OpenVINO's intermediate representation, verified in OpenVINO."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.capture import capture
from exporters.errors import ConversionError
from exporters.exporter import Conversion, Request
from exporters.network import TORCH_ERRORS, Network
from exporters.parity import Precision, Tolerance
from exporters.quiet import no_telemetry
from exporters.readback import FoundTensor, check_signature
from exporters.sessions.openvino import OpenVINOSession
from exporters.signature import DimensionRange, Signature, TensorSpec
from exporters.verification import verify_session

with no_telemetry():
    import openvino

_UNBOUNDED = 2**63 - 1
_CONVERSION_ERRORS = (
    *TORCH_ERRORS,
    openvino.frontend.GeneralFailure,
    openvino.frontend.NotImplementedFailure,
    openvino.frontend.OpConversionFailure,
    openvino.frontend.OpValidationFailure,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVINOExporter:
    """Writes an ``.xml`` file with its weights beside it as ``.bin``.

    In fp16 the weights are stored in float16 and the processor computes in float32 from them.
    """

    @property
    def format(self) -> str:
        """Name of the format."""
        return "openvino"

    @property
    def suffix(self) -> str:
        """Suffix of the file that OpenVINO loads."""
        return ".xml"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that OpenVINO has on a CPU."""
        return ("fp32", "fp16")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        return {package.__name__: str(package.__version__) for package in (torch, openvino)}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        program = capture(network)
        try:
            # Without `input` OpenVINO forgets the sizes of a static program.
            model = openvino.convert_model(program, input=[_shape(spec, network) for spec in network.signature.inputs])
        except _CONVERSION_ERRORS as error:
            raise ConversionError(f"`model` must be convertible to OpenVINO, but OpenVINO raised: {error}") from error
        _name_tensors(model, network.signature)
        for key, value in request.metadata.items():
            model.set_rt_info(value, ["exporters", key])
        openvino.save_model(model, path, compress_to_fp16=request.precision == "fp16")
        notes = ("Weights are stored in float16; on a CPU they are computed in float32.",)
        return Conversion(notes=notes if request.precision == "fp16" else ())

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check names, ranges, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        try:
            model = openvino.Core().read_model(artifact.path)
        except RuntimeError as error:
            raise ConversionError(
                f"{artifact.path.name} must be readable by OpenVINO, but it is not: {error}"
            ) from error
        check_signature(artifact.signature, *(_found(ports) for ports in (model.inputs, model.outputs)))
        artifact = verify_session(artifact, network, OpenVINOSession, tolerance=tolerance)
        return replace(artifact, audit=_audit(model, artifact.precision))


def _shape(spec: TensorSpec, network: Network) -> openvino.PartialShape:
    ranges = network.signature.dimensions
    return openvino.PartialShape(
        [
            openvino.Dimension(ranges[size].minimum, ranges[size].maximum) if isinstance(size, str) else size
            for size in spec.shape
        ]
    )


def _name_tensors(model: openvino.Model, signature: Signature) -> None:
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        for port, spec in zip(ports, specs, strict=True):
            port.get_tensor().set_names({spec.name})


def _found(ports: list[Any]) -> list[FoundTensor]:
    return [
        FoundTensor(
            port.get_any_name(),
            port.get_element_type().to_dtype().name,
            tuple(
                size.get_length()
                if size.is_static
                else DimensionRange(
                    size.get_min_length(), size.get_max_length() if size.get_max_length() >= 0 else _UNBOUNDED
                )
                for size in port.get_partial_shape()
            ),
        )
        for port in ports
    ]


def _audit(model: openvino.Model, precision: Precision) -> PrecisionAudit:
    weights: dict[str, int] = {}
    wide = []
    for node in model.get_ops():
        # OpenVINO leaves small constants as they are.
        if node.get_type_name() == "Constant" and len(node.shape) > 1 and node.data.size > 1024:
            dtype = node.get_element_type().to_dtype()
            if dtype.kind == "f":
                weights[dtype.name] = weights.get(dtype.name, 0) + node.data.size * dtype.itemsize
                wide += [node.get_friendly_name()] if dtype == "float32" and precision != "fp32" else []
    return PrecisionAudit(weight_bytes=weights, left_in_float=tuple(wide))

"""Export to OpenVINO's intermediate representation, verified in OpenVINO."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from exporters.artifact import Artifact
from exporters.capture import capture, is_quantized
from exporters.errors import ConversionError
from exporters.exporter import Conversion, Request
from exporters.network import TORCH_ERRORS, Network
from exporters.openvino_audit import audit_openvino
from exporters.openvino_names import carry_names
from exporters.parity import Precision, Tolerance
from exporters.quantization.integer_weights import with_scaled_weights
from exporters.quantization.report import QuantizationReport
from exporters.quantization.sparsity import sparse_layers
from exporters.quiet import errors_only, no_telemetry
from exporters.readback import FoundTensor, check_signature
from exporters.runtimes import import_runtime
from exporters.sessions.openvino import OpenVINOSession
from exporters.signature import DimensionRange, Signature, TensorSpec
from exporters.verification import verify_session

with no_telemetry():
    import openvino
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

_UNBOUNDED = 2**63 - 1
_NOTES: Mapping[Precision, tuple[str, ...]] = {
    "fp16": ("Weights are stored in float16; on a CPU they are computed in float32.",),
    "bf16": ("The processor must have bfloat16; exporters.load refuses the file elsewhere.",),
}
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

    In fp16 the weights are stored in float16 and the processor computes in float32 from them. In bf16 they are stored
    and computed in bfloat16. In int8 NNCF quantises weights and activations.
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
        return ("fp32", "fp16", "bf16", "int8")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        return {package.__name__: str(package.__version__) for package in (torch, openvino)}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        model = _to_openvino(network)
        report = None
        if request.calibration is not None:
            quantizer = import_runtime(
                {"openvino": ("exporters.quantization.nncf", "quantize_for_openvino")}, "openvino"
            )
            model, report = quantizer(model, network, request)
        elif request.precision == "int8":
            report = QuantizationReport(recipe="quantisation-aware training")
        elif request.precision == "bf16":
            _store_as_bfloat16(model)
        for key, value in request.metadata.items():
            model.set_rt_info(value, ["exporters", key])
        openvino.save_model(model, path, compress_to_fp16=request.precision == "fp16")
        return Conversion(
            notes=_NOTES.get(request.precision, ()), quantization=report, details=sparse_layers(network.weights)
        )

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
        session = OpenVINOSession(artifact, threads=1, precision="fp32")
        audit = audit_openvino(model, session.compiled, artifact.precision)
        if artifact.quantization is not None:
            artifact = replace(artifact, quantization=replace(artifact.quantization, left_in_float=audit.left_in_float))
        return replace(artifact, audit=audit)


def _to_openvino(network: Network) -> openvino.Model:
    program = capture(network)
    try:
        with errors_only("root"):
            readable = with_scaled_weights(program) if is_quantized(network) else program
            decoder = TorchFXPythonDecoder.from_exported_program(readable)
            # Without `input` OpenVINO forgets the sizes of a static program.
            model = openvino.convert_model(decoder, input=[_shape(spec, network) for spec in network.signature.inputs])
    except _CONVERSION_ERRORS as error:
        raise ConversionError(f"`model` must be convertible to OpenVINO, but OpenVINO raised: {error}") from error
    carry_names(model, decoder.pt_module.graph.nodes, program)
    _name_tensors(model, network.signature)
    return model


def _store_as_bfloat16(model: openvino.Model) -> None:
    """Store every weight in half the bytes, followed by a conversion that is done once, when the file is loaded."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.f32 and len(node.shape) > 1:
            narrow = openvino.opset15.constant(
                node.data, dtype=openvino.Type.bf16, name=f"{node.get_friendly_name()}/bf16"
            )
            wide = openvino.opset15.convert(narrow, "f32", name=node.get_friendly_name())
            for target in node.output(0).get_target_inputs():
                target.replace_source_output(wide.output(0))


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

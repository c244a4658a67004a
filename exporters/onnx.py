"""Export to ONNX, verified in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

from exporters.artifact import Artifact
from exporters.capture import capture
from exporters.errors import ConversionError
from exporters.network import TORCH_ERRORS, Network, as_half
from exporters.parity import Precision
from exporters.readback import FoundTensor, check_signature
from exporters.rounding import check_half
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.signature import DimensionRange, Signature
from exporters.verification import verify_session

# A protobuf message, which an ONNX file is, holds less than 2 GiB.
_LARGEST_BYTES = 2**31 - 1
_UNBOUNDED = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExporter:
    """Writes one self-contained ONNX file.

    In fp16 the whole graph is typed float16 between float32 inputs and outputs, so that no runtime has to be told.

    Args:
        opset: Version of the operator set; ``None`` for the one that PyTorch's exporter recommends.
    """

    opset: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.opset is not None and not 18 <= self.opset <= onnx.defs.onnx_opset_version():
            raise ValueError(
                f"`opset` must be None or from 18 to {onnx.defs.onnx_opset_version()}, got {self.opset!r}."
            )

    @property
    def format(self) -> str:
        """Name of the format."""
        return "onnx"

    @property
    def suffix(self) -> str:
        """Suffix of the file."""
        return ".onnx"

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        packages = (torch, onnx, onnxscript, onnxruntime)
        return {package.__name__: str(package.__version__) for package in packages}

    def convert(self, network: Network, path: Path, *, precision: Precision, metadata: Mapping[str, str]) -> None:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        model = self._to_onnx(as_half(network) if precision == "fp16" else network)
        _name_dimensions(model, network.signature)
        onnx.helper.set_model_props(model, dict(metadata))
        if model.ByteSize() > _LARGEST_BYTES:
            raise ConversionError(f"`model` must fit into one ONNX file of 2 GiB, got {model.ByteSize()} bytes.")
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ConversionError(f"the graph must be valid ONNX, but the checker says: {error}") from error
        onnx.save(model, path)

    def verify(self, artifact: Artifact, network: Network) -> Artifact:
        """Check names, ranges, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        model = onnx.load(artifact.path)
        check_signature(artifact.signature, *(_found(values) for values in (model.graph.input, model.graph.output)))
        if artifact.precision == "fp16":
            _check_types(model)
            check_half(network)
        return verify_session(artifact, network, OnnxRuntimeSession)

    def _to_onnx(self, network: Network) -> onnx.ModelProto:
        program = capture(network)
        try:
            converted = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=self.opset,
                input_names=[spec.name for spec in network.signature.inputs],
                output_names=[spec.name for spec in network.signature.outputs],
            )
        except TORCH_ERRORS as error:
            raise ConversionError(f"`model` must be convertible to ONNX, but torch.onnx raised: {error}") from error
        if converted is None:
            raise ConversionError("`model` must be convertible to ONNX, but torch.onnx returned nothing.")
        for weight in tuple(converted.model.graph.initializers.values()):
            weight.name = str(weight.name).removeprefix("module.")
        return converted.model_proto


def _name_dimensions(model: onnx.ModelProto, signature: Signature) -> None:
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for spec in (*signature.inputs, *signature.outputs):
        for size, dimension in zip(spec.shape, values[spec.name].type.tensor_type.shape.dim, strict=True):
            if isinstance(size, str):
                dimension.dim_param = size


def _found(values: list[onnx.ValueInfoProto]) -> list[FoundTensor]:
    return [
        FoundTensor(
            value.name,
            str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            tuple(
                dimension.dim_value if dimension.HasField("dim_value") else DimensionRange(0, _UNBOUNDED)
                for dimension in value.type.tensor_type.shape.dim
            ),
        )
        for value in values
    ]


def _check_types(model: onnx.ModelProto) -> None:
    wide = [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
    ]
    if wide:
        raise ConversionError(f"every weight of an fp16 file must be float16, but float32 was kept for {wide}.")

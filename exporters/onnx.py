"""Export to ONNX, verified in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

from exporters.artifact import Artifact
from exporters.exporter import Conversion, Request
from exporters.network import Network, as_type
from exporters.onnx_audit import audit_onnx
from exporters.onnx_graph import found_tensors, save_model, to_onnx
from exporters.parity import Precision, Tolerance
from exporters.quantization.onnx import left_in_float, quantize_for_cpu
from exporters.quantization.onnx_fold import store_as_integers
from exporters.quantization.onnx_unsigned import make_activations_unsigned
from exporters.quantization.report import QuantizationReport
from exporters.quantization.sparsity import sparse_layers
from exporters.readback import check_signature
from exporters.rounding import check_half
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.verification import verify_session


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExporter:
    """Writes one self-contained ONNX file.

    In fp16 the whole graph is typed float16 between float32 inputs and outputs, so that no runtime has to be told. In
    int8 it has explicit QuantizeLinear and DequantizeLinear in the form that ONNX Runtime computes fast on a CPU.

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
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that ONNX Runtime has on a CPU."""
        return ("fp32", "fp16", "int8")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        packages = (torch, onnx, onnxscript, onnxruntime)
        return {package.__name__: str(package.__version__) for package in packages}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        model = to_onnx(as_type(network, torch.float16) if request.precision == "fp16" else network, opset=self.opset)
        report = None
        if request.calibration is not None:
            model, report = quantize_for_cpu(model, network, request)
        elif request.precision == "int8":
            model = make_activations_unsigned(store_as_integers(model))
            report = QuantizationReport(recipe="quantisation-aware training", left_in_float=left_in_float(model))
        save_model(model, path, metadata=request.metadata)
        return Conversion(quantization=report, details=sparse_layers(network.weights))

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check names, ranges, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        model = onnx.load(artifact.path)
        check_signature(artifact.signature, *map(found_tensors, (model.graph.input, model.graph.output)))
        if artifact.precision == "fp16":
            check_half(network, tolerance=tolerance)
        artifact = verify_session(artifact, network, OnnxRuntimeSession, tolerance=tolerance)
        audit = audit_onnx(artifact)
        if artifact.quantization is not None:
            artifact = replace(artifact, quantization=replace(artifact.quantization, left_in_float=audit.left_in_float))
        return replace(artifact, audit=audit)

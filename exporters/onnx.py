"""Export to ONNX, verified in ONNX Runtime."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.exporter import Conversion, Request
from exporters.network import Network, as_type
from exporters.onnx_graph import found_tensors, save_model, to_onnx
from exporters.parity import Precision, Tolerance
from exporters.readback import check_signature
from exporters.rounding import check_half
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.verification import verify_session


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
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that ONNX Runtime has on a CPU."""
        return ("fp32", "fp16")

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        packages = (torch, onnx, onnxscript, onnxruntime)
        return {package.__name__: str(package.__version__) for package in packages}

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        module = as_type(network, torch.float16) if request.precision == "fp16" else network
        save_model(to_onnx(module, opset=self.opset), path, metadata=request.metadata)
        return Conversion()

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check names, ranges, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        model = onnx.load(artifact.path)
        check_signature(artifact.signature, *map(found_tensors, (model.graph.input, model.graph.output)))
        if artifact.precision == "fp16":
            check_half(network)
        artifact = verify_session(artifact, network, OnnxRuntimeSession, tolerance=tolerance)
        return replace(artifact, audit=_audit(model, artifact.precision))


def _audit(model: onnx.ModelProto, precision: Precision) -> PrecisionAudit:
    weights: dict[str, int] = {}
    wide = []
    for tensor in model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if len(tensor.dims) > 1 and dtype.kind == "f":
            weights[dtype.name] = weights.get(dtype.name, 0) + dtype.itemsize * math.prod(tensor.dims)
            wide += [tensor.name] if dtype == "float32" and precision != "fp32" else []
    return PrecisionAudit(weight_bytes=weights, left_in_float=tuple(wide))

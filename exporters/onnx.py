"""Export to ONNX, verified in ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

from exporters.artifact import Artifact
from exporters.errors import ConversionError
from exporters.network import Network, as_half
from exporters.onnx_graph import found_tensors, save_model, to_onnx
from exporters.parity import Precision
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
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run."""
        packages = (torch, onnx, onnxscript, onnxruntime)
        return {package.__name__: str(package.__version__) for package in packages}

    def convert(self, network: Network, path: Path, *, precision: Precision, metadata: Mapping[str, str]) -> None:
        """Write ``network`` to ``path``; see `exporters.exporter.Exporter.convert`."""
        model = to_onnx(as_half(network) if precision == "fp16" else network, opset=self.opset)
        save_model(model, path, metadata=metadata)

    def verify(self, artifact: Artifact, network: Network) -> Artifact:
        """Check names, ranges, types and numbers of the written file; see `exporters.exporter.Exporter.verify`."""
        model = onnx.load(artifact.path)
        check_signature(artifact.signature, *map(found_tensors, (model.graph.input, model.graph.output)))
        if artifact.precision == "fp16":
            _check_types(model)
            check_half(network)
        return verify_session(artifact, network, OnnxRuntimeSession)


def _check_types(model: onnx.ModelProto) -> None:
    wide = [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1
    ]
    if wide:
        raise ConversionError(f"every weight of an fp16 file must be float16, but float32 was kept for {wide}.")

"""What an ONNX file stores, and in which types ONNX Runtime really computes it."""

import tempfile
from collections import Counter
from pathlib import Path

import onnx

from exporters.artifact import Artifact
from exporters.audit import PrecisionAudit
from exporters.onnx_names import layer_of
from exporters.sessions.onnxruntime import open_file

_INTEGER = frozenset(
    (
        *("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"),
        *("QGemm", "QLinearConv", "QLinearConvTranspose", "QLinearMatMul"),
    )
)
_FLOAT = frozenset(("Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"))


def audit_onnx(artifact: Artifact) -> PrecisionAudit:
    """Read a file back: types of its weights, and for int8 those of the operators that ONNX Runtime executes.

    A graph with QuantizeLinear and DequantizeLinear is int8 only where ONNX Runtime fuses them with what is between;
    elsewhere it dequantises and computes in float32. So the graph that it executes is looked at, not the file's.

    Args:
        artifact: The file; ONNX Runtime computes other precisions in the types that the graph has.

    Returns:
        The audit.
    """
    model = onnx.load(artifact.path)
    weights: Counter[str] = Counter()
    wide = []
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            weights[dtype.name] += len(onnx.numpy_helper.to_array(tensor).tobytes())
            wide += [tensor.name] if dtype == "float32" and artifact.precision == "fp16" else []
    if artifact.precision != "int8":
        return PrecisionAudit(weight_bytes=_floating(weights), left_in_float=tuple(wide))
    executed = _executed(artifact.path)
    operators = Counter(
        "int8" if node.op_type in _INTEGER else "float32"
        for node in executed.graph.node
        if node.op_type in _INTEGER | _FLOAT
    )
    # Fusions rename operators in floating point, but not those in integers.
    integer = {layer_of(node) for node in executed.graph.node if node.op_type in _INTEGER}
    layers = dict.fromkeys(layer_of(node) or node.name for node in model.graph.node if node.op_type in _FLOAT)
    left = tuple(layer for layer in layers if layer not in integer)
    return PrecisionAudit(weight_bytes=dict(weights), operators=dict(operators), left_in_float=left)


def _floating(weights: Counter[str]) -> dict[str, int]:
    """Bytes of floating-point weights; integers, such as indices, have no other type."""
    return {name: size for name, size in weights.items() if "float" in name}


def _executed(path: Path) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        open_file(str(path), threads=1, optimized=optimized)
        return onnx.load(optimized)

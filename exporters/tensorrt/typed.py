"""Types that a graph for TensorRT says its values have; a strongly typed engine computes in just these."""

import math
from collections import Counter

import onnx

from exporters.audit import PrecisionAudit
from exporters.parity import Precision

_COMPUTING = ("Attention", "Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "LSTM", "MatMul", "RNN")
# What stands between a weight's DequantizeLinear and the product that uses it, after quantisation-aware training.
_MOVING = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_WANTED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}


def audit_types(model: onnx.ModelProto, precision: Precision) -> PrecisionAudit:
    """Count weights and computing operators by type.

    An operator counts as int8 if both its operands come from a ``DequantizeLinear``: TensorRT then computes the product
    in int8.

    Args:
        model: The graph.
        precision: What it should have.

    Returns:
        The audit; ``left_in_float`` has the computing operators of any other type.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    typed = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if len(tensor.dims) > 1 and ("float" in dtype.name or dtype.name == "int8"):
            weights[dtype.name] += dtype.itemsize * math.prod(tensor.dims)
    operators = {
        node.name: "int8" if _is_quantized(node, makers) else _name(kinds[node.input[0]])
        for node in model.graph.node
        if node.op_type in _COMPUTING
    }
    return PrecisionAudit(
        weight_bytes=dict(weights),
        operators=dict(Counter(operators.values())),
        left_in_float=tuple(name for name, kind in operators.items() if kind != _WANTED[precision]),
    )


def _is_quantized(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    return all(_origin(name, makers) == "DequantizeLinear" for name in node.input[:2])


def _origin(name: str, makers: dict[str, onnx.NodeProto]) -> str:
    while name in makers and makers[name].op_type in _MOVING:
        name = makers[name].input[0]
    return str(makers[name].op_type) if name in makers else ""


def _name(kind: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)

"""What an OpenVINO file stores, and in which types the processor really computes it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from exporters.audit import PrecisionAudit
from exporters.parity import Precision

COMPUTING = frozenset(
    (
        *("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"),
        *("MatMul", "ScaledDotProductAttention"),
    )
)
"""Types of the operations that multiply."""

_TYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
}
_EXECUTED = frozenset(("Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention"))
_RESCALED = "/DequantizationMultiply"
# Asked for float16, OpenVINO leaves small constants as they are; in bytes.
_SMALL = 1024


def layer_of(name: str) -> str:
    """Module path in the name of an operation that `exporters.openvino_names.carry_names` named."""
    return name.partition("/")[0]


def audit_openvino(model: Any, compiled: Any, precision: Precision) -> PrecisionAudit:
    """Read a file back: types of its weights, and of the operations as compiled.

    Args:
        model: The ``openvino.Model`` in the file.
        compiled: The same, compiled for the processor at hand.
        precision: What was asked for. Half-precision weights are computed in float32 on a processor, as the artifact's
            notes say, so that for fp16 only the weights count.

    Returns:
        The audit.
    """
    weights: Counter[str] = Counter()
    wide = []
    smallest = _SMALL if precision == "fp16" else 0
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and len(node.shape) > 1 and node.get_byte_size() > smallest:
            kind = _TYPES.get(node.get_element_type().get_type_name(), node.get_element_type().get_type_name())
            weights[kind] += node.get_byte_size()
            wide += [node.get_friendly_name()] if kind == "float32" else []
    if precision == "fp16":
        return PrecisionAudit(weight_bytes=dict(weights), left_in_float=tuple(wide))
    executed = executed_types(model, compiled)
    operators = Counter(executed.values())
    left = float_layers(executed) if precision == "int8" else ()
    return PrecisionAudit(weight_bytes=dict(weights), operators=dict(operators), left_in_float=left)


def executed_types(model: Any, compiled: Any) -> dict[str, str]:
    """Type in which every computing operation is executed, by its name, or by the runtime's where it has changed it."""
    computing = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() in COMPUTING}
    found: dict[str, str] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        # Operations with integer inputs are renamed after the step that undoes the scale.
        names = [name.removesuffix(_RESCALED) for name in facts["originalLayersNames"].value.split(",")]
        known = [name for name in names if name in computing]
        if known or facts["layerType"].value in _EXECUTED:
            # What operations fused into one have is the type of any input, such as a mask.
            fused = facts["layerType"].value == "Subgraph"
            kind = facts["outputPrecisions" if fused else "runtimePrecision"].value.partition(",")[0]
            found[known[0] if known else node.get_friendly_name()] = _TYPES.get(kind, kind)
    return found


def float_layers(executed: Mapping[str, str]) -> tuple[str, ...]:
    """Layers of the operations that are executed in floating point."""
    left = (name for name, kind in executed.items() if kind not in ("int8", "uint8"))
    return tuple(dict.fromkeys(layer_of(name) or name for name in left))

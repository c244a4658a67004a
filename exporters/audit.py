"""In which types a written file really stores its weights and computes: converters fall back to float32 silently."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from exporters.errors import ConversionError
from exporters.parity import Precision

# Operators that a runtime computes in more than one type all the same, such as the casts at both ends, are not counted.
_STORED_AS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("float32",),
    "fp16": ("float16",),
    "bf16": ("bfloat16", "float16"),
    "int8": ("int8", "uint8", "uint6", "int4", "uint4", "uint3", "uint2", "uint1"),
}
_COMPUTED_IN: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("float32",),
    "fp16": ("float16",),
    "bf16": ("bfloat16",),
    "int8": ("int8", "uint8"),
}

# Types of masks and indices.
_NEVER_WEIGHTS = ("bool", "int32", "int64")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionAudit:
    """What was read back from a written file, or from the runtime that loaded it.

    Args:
        weight_bytes: Bytes of weights (constants with more than one dimension) by NumPy name of their type.
        operators: Number of convolutions, matrix products and other computing operators, by the type in which they are
            computed; empty where the format does not say.
        left_in_float: Computing operators or layers that do not have the precision that was asked for, by name.
    """

    weight_bytes: Mapping[str, int]
    operators: Mapping[str, int] = field(default_factory=dict)
    left_in_float: tuple[str, ...] = ()

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of an audit."""
        return cls(**{**content, "left_in_float": tuple(content["left_in_float"])})

    def active(self, precision: Precision) -> float:
        """Share of the computing operators, or where they are not known of the weights' bytes, in ``precision``.

        Example:
            >>> audit = PrecisionAudit(weight_bytes={"int8": 900, "float32": 300}, operators={"int8": 3, "float32": 1})
            >>> audit.active("int8")
            0.75
        """
        weights = {name: count for name, count in self.weight_bytes.items() if name not in _NEVER_WEIGHTS}
        counts, names = (self.operators, _COMPUTED_IN) if self.operators else (weights, _STORED_AS)
        total = sum(counts.values())
        return sum(counts.get(name, 0) for name in names[precision]) / total if total else 1.0


def check_audit(audit: PrecisionAudit, precision: Precision, *, file: str) -> None:
    """Raise unless a file has the precision that was asked for somewhere that matters.

    fp32, fp16 and bf16 are properties of the whole file: none of its weights or computing operators may be wider. int8
    leaves some layers in floating point on purpose; at least one must be quantised.

    Args:
        audit: What was read back.
        precision: What was asked for.
        file: Name of the file, for the message.

    Raises:
        ConversionError: If the precision is not active.

    Example:
        >>> check_audit(PrecisionAudit(weight_bytes={"float32": 400}), "fp16", file="n.onnx")
        Traceback (most recent call last):
        exporters.errors.ConversionError: n.onnx must be in fp16, but weights are float32 (400 bytes).
    """
    share = audit.active(precision)
    if share == 1.0 or (precision == "int8" and share > 0):
        return
    counts, unit = (audit.operators, "operators") if audit.operators else (audit.weight_bytes, "bytes")
    found = ", ".join(f"{name} ({count} {unit})" for name, count in counts.items())
    left = f": {', '.join(audit.left_in_float[:5])}" if audit.left_in_float else ""
    raise ConversionError(
        f"{file} must be in {precision}, but {'operators' if audit.operators else 'weights'} are {found}{left}."
    )

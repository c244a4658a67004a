"""In which types a Core AI program stores and computes."""

from collections.abc import Mapping
from math import prod
from typing import Any

from coreai._compiler.ir import Operation, WalkResult
from coreai.authoring import AIProgram

from exporters.audit import PrecisionAudit
from exporters.parity import Precision

_NAMES: Mapping[str, str] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "si8": "int8", "ui8": "uint8"}
# What moves elements and computes nothing: a tensor may pass it between its integers and the operator. Padding is with
# zero, which every range of integers has.
_MOVES = tuple(f"coreai.{name}" for name in ("transpose", "reshape", "expand_dims", "shrink_dims", "slice", "pad"))


def audit_program(program: AIProgram, precision: Precision) -> PrecisionAudit:
    """Read the types of a program.

    Args:
        program: The program of a written asset.
        precision: What was asked for. In int8 a convolution or matrix product counts as int8 if both of its operands
            come from integers.

    Returns:
        Bytes of weights, and convolutions and matrix products by type. Where only the weights are integers, what
        computes is left out: it computes in floating point, as was asked for.
    """
    weights: dict[str, int] = {}
    computing: list[tuple[str, str]] = []

    def visit(operation: Operation) -> WalkResult:
        name = operation.name
        if name == "coreai.constant":
            _add_weight(weights, operation.results[0].type)
        elif "conv" in name.split(".")[-1] or "matmul" in name:
            computing.append((name, _type_of(operation) if precision != "int8" else _quantized_type(operation)))
        return WalkResult.ADVANCE

    # The public summary counts operators without their types.
    program._module._mlir_module.operation.walk(visit)  # noqa: SLF001
    counts = {dtype: sum(found == dtype for _, found in computing) for dtype in dict.fromkeys(d for _, d in computing)}
    if precision == "int8" and "int8" not in counts and "int8" in weights:
        return PrecisionAudit(weight_bytes=weights)
    wide = tuple(name for name, dtype in computing if precision != "fp32" and dtype == "float32")
    return PrecisionAudit(weight_bytes=weights, operators=counts, left_in_float=wide)


def _add_weight(weights: dict[str, int], kind: Any) -> None:
    name = _NAMES.get(str(kind.element_type))
    if name is not None and len(kind.shape) > 1:
        weights[name] = weights.get(name, 0) + prod(kind.shape) * kind.element_type.width // 8


def _type_of(operation: Operation) -> str:
    element = str(operation.results[0].type.element_type)
    return _NAMES.get(element, element)


def _quantized_type(operation: Operation) -> str:
    return "int8" if all(_comes_from_integers(value) for value in list(operation.operands)[:2]) else _type_of(operation)


def _comes_from_integers(value: Any) -> bool:
    owner = value.owner
    while isinstance(owner, Operation) and owner.name in _MOVES:
        owner = owner.operands[0].owner
    return isinstance(owner, Operation) and owner.name == "coreai.dequantize"

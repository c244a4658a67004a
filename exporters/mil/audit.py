"""In which types a program of Core ML stores its weights and computes."""

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from exporters.audit import PrecisionAudit
from exporters.mil.evaluator import input_vars, operations
from exporters.mil.toolkit import types

COMPUTING = ("conv", "conv_transpose", "einsum", "linear", "lstm", "matmul", "scaled_dot_product_attention")
"""Operators whose type decides how fast a network is."""

# Inputs of the decompressing operators that hold the weights; the others are scales and tables.
_STORED = ("quantized_data", "data", "indices", "indices_nonzero_data", "nonzero_data")
_NAMES = {"fp16": "float16", "fp32": "float32"}


def audit_program(main: Any, *, kept: Collection[str] = (), weights_only: bool = False) -> PrecisionAudit:
    """Weights' bytes and computing operators of a program by type.

    Args:
        main: The function ``main`` of the program.
        kept: Names of operations left in float32 on purpose; they are listed and not counted.
        weights_only: Whether only weights were compressed, so that the types of the operators say nothing.

    Returns:
        The audit. ``left_in_float`` names the operations kept, and with ``weights_only`` the computing operators whose
        weights are stored in floating point.
    """
    weights: dict[Any, None] = {}
    operators: Counter[str] = Counter()
    left = []
    for op in operations(main):
        stored = [var for var in _stored(op) if op.name not in kept]
        weights.update(dict.fromkeys(stored))
        if op.name in kept or (weights_only and op.op_type in COMPUTING and any(_is_float(var) for var in stored)):
            left.append(op.name)
        elif op.op_type in COMPUTING:
            operators[_type_name(op.outputs[0])] += 1
    bytes_by_type: Counter[str] = Counter()
    for var in weights:
        bytes_by_type[_type_name(var)] += -(-np.asarray(var.val).size * _bits(var) // 8)
    return PrecisionAudit(
        weight_bytes=dict(bytes_by_type),
        operators={} if weights_only else dict(operators),
        left_in_float=tuple(left),
    )


def lowest_precision(main: Any) -> str:
    """The lowest type in which a program computes: ``"fp16"`` or ``"fp32"``, ``"int8"`` with quantised activations."""
    found = {types.builtin_to_string(op.outputs[0].dtype) for op in operations(main) if op.op_type in COMPUTING}
    if any(op.op_type == "quantize" for op in operations(main)):
        return "int8"
    return "fp16" if "fp16" in found else "fp32"


def _stored(op: Any) -> Iterator[Any]:
    """Constants that hold the weights of an operation."""
    if op.op_type.startswith("constexpr_"):
        candidates = [op.inputs[name] for name in _STORED if op.inputs.get(name) is not None]
    else:
        candidates = [var for var in input_vars(op) if np.ndim(var.val) > 1]
    yield from (var for var in candidates if var.op is not None and var.op.op_type == "const")


def _bits(var: Any) -> int:
    # A mask of truth values has a byte for each.
    return 8 if var.dtype is types.bool else int(var.dtype.get_bitwidth())


def _is_float(var: Any) -> bool:
    return _type_name(var).startswith("float")


def _type_name(var: Any) -> str:
    name = str(types.builtin_to_string(var.dtype))
    return _NAMES.get(name, name)

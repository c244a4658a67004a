"""Runs a program of Core ML op by op."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exporters.errors import ConversionError
from exporters.mil.arguments import Arguments
from exporters.mil.operators import OPERATORS
from exporters.mil.toolkit import types

_BLOCKS = ("cond", "while_loop")


@dataclass(frozen=True, slots=True)
class Overflow:
    """An operator that made a value which is not finite out of finite ones.

    Args:
        operation: Name of the operation in the program.
        kind: Its operator.
        dtype: Type to which its outputs are rounded.
        reader: Name of the operation that reads the value first; empty for an output of the network.
    """

    operation: str
    kind: str
    dtype: str
    reader: str


class Evaluator:
    """A function of a program, run on tensors.

    Every operator computes in float32 on inputs that were rounded to their declared types; its outputs are rounded to
    theirs, so that float16 overflows and loses bits where Core ML's does. Sums inside an operator are not rounded.

    Args:
        function: The function ``main`` of a loaded program.

    Raises:
        ConversionError: If an operator is not in the table.
    """

    def __init__(self, function: Any) -> None:
        unknown = [f"`{op.op_type}` ({op.name})" for op in operations(function) if not _is_known(op)]
        if unknown:
            raise ConversionError(
                f"every operator of the package must be one that can be evaluated, got {', '.join(unknown)}; "
                f"replace it in the network, or run the package on macOS."
            )
        self._function = function
        self._constants: dict[Any, Any] = {}
        for op in operations(function):
            if op.op_type == "const":
                self._constants[op.outputs[0]] = _constant(op.outputs[0].val)
            elif op.op_type.startswith("constexpr_"):
                self._constants.update(zip(op.outputs, _outputs(op, self._constants), strict=True))
        self._last_uses = _last_uses(function)
        self.first_overflow: Overflow | None = None

    def run(
        self, inputs: Mapping[str, Tensor], observe: Callable[[str, Tensor], None] = lambda *_: None
    ) -> dict[str, Tensor]:
        """Compute the function.

        Args:
            inputs: Tensors by input name; floating-point ones in float32, integers of any width.
            observe: Called with the name and value of every intermediate tensor.

        Returns:
            Tensors by output name, in float32, int64 or bool.
        """
        values = {var: _rounded(inputs[name], var) for name, var in self._function.inputs.items()}
        with torch.inference_mode():
            self._run_block(self._function, values, observe)
        return {var.name: self._value(var, values) for var in self._function.outputs}

    def _run_block(self, block: Any, values: dict[Any, Any], observe: Callable[[str, Tensor], None]) -> list[Any]:
        for op in block.operations:
            if op.outputs[0] in self._constants:
                continue
            results = self._run_operation(op, values, observe)
            for var, result in zip(op.outputs, results, strict=True):
                values[var] = result
                observe(var.name, result)
            for var in self._last_uses.get(op, ()):
                values.pop(var, None)
        return [self._value(var, values) for var in block.outputs]

    def _run_operation(self, op: Any, values: dict[Any, Any], observe: Callable[[str, Tensor], None]) -> Sequence[Any]:
        if op.op_type == "cond":
            taken = bool(self._value(op.inputs["pred"], values))
            return self._run_block(op.blocks[0 if taken else 1], values, observe)
        if op.op_type == "while_loop":
            return self._run_loop(op, values, observe)
        environment = {var: self._value(var, values) for var in input_vars(op)}
        results = _outputs(op, environment)
        if self.first_overflow is None and not _finite(results) and _finite(environment.values()):
            dtype = types.builtin_to_string(op.outputs[0].dtype)
            readers = [reader.name for var in op.outputs for reader in var.child_ops]
            self.first_overflow = Overflow(op.name, op.op_type, dtype, next(iter(readers), ""))
        return results

    def _run_loop(self, op: Any, values: dict[Any, Any], observe: Callable[[str, Tensor], None]) -> Sequence[Any]:
        condition, body = op.blocks
        state = [self._value(var, values) for var in op.inputs["loop_vars"]]
        while True:
            values.update(zip(condition.inputs, state, strict=True))
            if not bool(self._run_block(condition, values, observe)[0]):
                return state
            values.update(zip(body.inputs, state, strict=True))
            state = self._run_block(body, values, observe)

    def _value(self, var: Any, values: Mapping[Any, Any]) -> Any:
        return self._constants[var] if var in self._constants else values[var]


def operations(block: Any) -> Iterator[Any]:
    """Every operation of a function or block, those of inner blocks before the operation that holds them."""
    for op in block.operations:
        for inner in op.blocks:
            yield from operations(inner)
        yield op


def input_vars(op: Any) -> list[Any]:
    """The variables that an operation reads."""
    listed = [value if isinstance(value, list | tuple) else [value] for value in op.inputs.values()]
    return [var for group in listed for var in group if var is not None]


def _is_known(op: Any) -> bool:
    return op.op_type == "const" or op.op_type in _BLOCKS or op.op_type in OPERATORS


def _last_uses(function: Any) -> dict[Any, list[Any]]:
    """Which values nobody reads after an operation of the outermost block; inner blocks read what they like."""
    last: dict[Any, Any] = {}
    for op in function.operations:
        for inner in operations(_Holder([op])):
            last.update(dict.fromkeys(input_vars(inner), op))
        for block in op.blocks:
            last.update(dict.fromkeys(block.outputs, op))
    result: dict[Any, list[Any]] = {}
    for var, op in last.items():
        if var not in function.outputs:
            result.setdefault(op, []).append(var)
    return result


@dataclass(frozen=True, slots=True)
class _Holder:
    operations: Sequence[Any]


def _outputs(op: Any, environment: Mapping[Any, Any]) -> list[Any]:
    arguments = {
        name: [environment[var] for var in value] if isinstance(value, list | tuple) else environment[value]
        for name, value in op.inputs.items()
        if value is not None
    }
    found = OPERATORS[op.op_type](Arguments(arguments))
    results = [found] if isinstance(found, Tensor) else list(found)
    return [_rounded(result, var) for result, var in zip(results, op.outputs, strict=False)]


def _constant(value: Any) -> Any:
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    return torch.from_numpy(array.astype(np.bool_ if array.dtype.kind == "b" else np.int64))


def _rounded(tensor: Tensor, var: Any) -> Tensor:
    """The tensor as its declared type holds it; whole numbers stay in 64 bits, where they cannot overflow."""
    if var.dtype == types.fp16:
        return tensor.half().float()
    if var.dtype == types.fp32:
        return tensor.float()
    return tensor.bool() if var.dtype == types.bool else tensor.long()


def _finite(values: Any) -> bool:
    return all(
        bool(value.isfinite().all())
        for entry in values
        for value in (entry if isinstance(entry, list) else [entry])
        if isinstance(value, Tensor) and value.is_floating_point()
    )

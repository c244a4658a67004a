"""What a written ``.pte`` file says: inputs, delegates, operators, memory and the types of its weights."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.scalar_type import ScalarType
from executorch.exir.schema import DelegateCall, KernelCall, Tensor, TensorShapeDynamism

from exporters.errors import ConversionError
from exporters.executorch.xnnpack_graph import PartitionFacts, read_partition
from exporters.readback import FoundTensor
from exporters.signature import DimensionRange, TensorSpec

XNNPACK = "XnnpackBackend"
_METHOD = "forward"
_NUMPY_NAMES = {
    "BYTE": "uint8",
    "CHAR": "int8",
    "SHORT": "int16",
    "INT": "int32",
    "LONG": "int64",
    "HALF": "float16",
    "FLOAT": "float32",
    "DOUBLE": "float64",
}
_COMPUTING = {"addmm", "bmm", "convolution", "linear", "mm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The facts of one file.

    Args:
        inputs: What ``forward`` takes: NumPy type, sizes (upper bounds where dynamic), whether any size may vary.
        outputs: What it returns, likewise.
        delegates: Delegate of every partition, in the order of their calls.
        delegated: Number of nodes inside XNNPACK partitions by XNNPACK's name of the operator.
        outside: Number of calls of ExecuTorch's own kernels by operator.
        memory_bytes: Memory planned for inputs, outputs and intermediate values, without what delegates allocate.
        weight_bytes: Bytes of constants by type.
        computing: Number of convolutions and matrix products by type.
    """

    inputs: tuple[tuple[str, tuple[int, ...], bool], ...]
    outputs: tuple[tuple[str, tuple[int, ...], bool], ...]
    delegates: tuple[str, ...]
    delegated: Mapping[str, int]
    outside: Mapping[str, int]
    memory_bytes: int
    weight_bytes: Mapping[str, int]
    computing: Mapping[str, int]

    def found(self, specs: Sequence[TensorSpec], *, outputs: bool) -> list[FoundTensor]:
        """The file's tensors for comparison with ``specs``; a file has positions instead of names."""
        tensors = self.outputs if outputs else self.inputs
        if len(tensors) != len(specs):
            raise ConversionError(f"the file must have {len(specs)} tensors for {specs}, got {tensors}.")
        return [_as_found(spec, *tensor) for spec, tensor in zip(specs, tensors, strict=True)]


def read_program(path: Path) -> Program:
    """Read a ``.pte`` file.

    Args:
        path: The file.

    Returns:
        Its facts.

    Raises:
        ConversionError: If the file cannot be decoded.
    """
    program, plan = decode(path)
    partitions = [
        read_partition(bytes(program.backend_delegate_data[delegate.processed.index].data))
        for delegate in plan.delegates
        if delegate.id == XNNPACK
    ]
    calls = [(plan.operators[call.op_index], call) for call in instructions(plan, KernelCall)]
    return Program(
        inputs=tuple(_facts(plan.values[index].val) for index in plan.inputs),
        outputs=tuple(_facts(plan.values[index].val) for index in plan.outputs),
        delegates=tuple(plan.delegates[call.delegate_index].id for call in instructions(plan, DelegateCall)),
        delegated=_sum(partition.nodes for partition in partitions),
        outside=dict(Counter(f"{operator.name}.{operator.overload}".rstrip(".") for operator, _ in calls)),
        memory_bytes=sum(plan.non_const_buffer_sizes[1:]),
        weight_bytes=_weight_bytes(plan, partitions),
        computing=_sum(
            [partition.computing for partition in partitions]
            + [
                {_dtype(plan.values[call.args[-1]].val): 1}
                for operator, call in calls
                if operator.name.removeprefix("aten::") in _COMPUTING
            ]
        ),
    )


def decode(path: Path) -> tuple[Any, Any]:
    """The program of a file as ExecuTorch has it, and the plan of its method ``forward``."""
    try:
        program = deserialize_pte_binary(path.read_bytes()).program
        return program, next(plan for plan in program.execution_plan if plan.name == _METHOD)
    except (StopIteration, ValueError, TypeError, IndexError, AssertionError, struct.error) as error:
        raise ConversionError(f"{path.name} must be an ExecuTorch program with a method `forward`: {error}") from error


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _weight_bytes(plan: Any, partitions: Sequence[PartitionFacts]) -> dict[str, int]:
    weights = {key: weight for partition in partitions for key, weight in partition.weights.items()}
    tensors = [value.val for value in plan.values if isinstance(value.val, Tensor)]
    constants = [
        (_dtype(tensor), math.prod(tensor.sizes) * np.dtype(_dtype(tensor)).itemsize)
        for tensor in tensors
        if tensor.data_buffer_idx and tensor.allocation_info is None and len(tensor.sizes) > 1
    ]
    return _sum({dtype: size_bytes} for dtype, size_bytes in [*weights.values(), *constants])


def instructions(plan: Any, kind: type) -> Iterator[Any]:
    """Calls of one kind, in their order."""
    for chain in plan.chains:
        for instruction in chain.instructions:
            if isinstance(instruction.instr_args, kind):
                yield instruction.instr_args


def _facts(tensor: Any) -> tuple[str, tuple[int, ...], bool]:
    return _dtype(tensor), tuple(tensor.sizes), tensor.shape_dynamism != TensorShapeDynamism.STATIC


def _dtype(tensor: Any) -> str:
    name = str(ScalarType(tensor.scalar_type).name)
    return _NUMPY_NAMES.get(name, name.lower())


def _as_found(spec: TensorSpec, dtype: str, sizes: tuple[int, ...], dynamic: bool) -> FoundTensor:
    # The file knows upper bounds only; smaller sizes are tried when it is run.
    shape = tuple(
        DimensionRange(0, size) if dynamic and isinstance(declared, str) else size
        for declared, size in zip(spec.shape, sizes, strict=True)
    )
    return FoundTensor(spec.name, dtype, shape)

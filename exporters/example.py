"""Example inputs: bound to the parameters of ``forward``, and brought to other sizes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from exporters.errors import CaptureError
from exporters.signature import DimensionRange, TensorSpec

ExampleInputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def bind_example(
    forward: Callable[..., Any], example_inputs: ExampleInputs
) -> tuple[tuple[Tensor, ...], tuple[str, ...], tuple[str, ...]]:
    """The example by position, the names of inputs that go by keyword, and the names of all inputs.

    Raises:
        CaptureError: If the example does not fit ``forward``.
    """
    positional, keywords = _split(example_inputs)
    signature = inspect.signature(forward)
    try:
        arguments = signature.bind(*positional, **keywords).arguments
    except TypeError as error:
        given = f"the names {sorted(keywords)}" if keywords else f"{len(positional)} by position"
        raise CaptureError(f"`example_inputs` must fit forward{signature}, got {given}: {error}.") from error
    names: list[str] = []
    for name, value in arguments.items():
        match signature.parameters[name].kind:
            case inspect.Parameter.VAR_POSITIONAL:
                names += [f"{name}_{index}" for index in range(len(value))]
            case inspect.Parameter.VAR_KEYWORD:
                names += list(value)
            case _:
                names.append(name)
    by_name = keywords or dict(zip(names, positional, strict=True))
    # Core ML and ExecuTorch take the order of dimensions in memory for a part of the interface.
    example = tuple(
        cast_floats(by_name[name].detach().cpu(), torch.float32).clone(memory_format=torch.contiguous_format)
        for name in names
    )
    return example, tuple(names) if keywords else (), tuple(names)


def _split(example_inputs: ExampleInputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    keywords: dict[str, Tensor] = {}
    positional: tuple[Tensor, ...] = ()
    if isinstance(example_inputs, Mapping):
        keywords = dict(example_inputs)
    elif isinstance(example_inputs, Tensor):
        positional = (example_inputs,)
    elif isinstance(example_inputs, Sequence):
        positional = tuple(example_inputs)
    values = (*positional, *keywords.values())
    if not values or not all(isinstance(value, Tensor) for value in values):
        kinds = ", ".join(type(value).__name__ for value in values) or repr(example_inputs)
        raise CaptureError(f"`example_inputs` must be a tensor, a tuple of tensors or a dict of tensors, got {kinds}.")
    return positional, keywords


def with_batch(example: tuple[Tensor, ...], names: tuple[str, ...], batch: DimensionRange) -> tuple[Tensor, ...]:
    """The example with a batch of at least two samples, because `torch.export` takes a size of one for a constant.

    Raises:
        CaptureError: If the inputs do not agree on a batch.
    """
    sizes = {name: tensor.shape[0] if tensor.ndim else 0 for name, tensor in zip(names, example, strict=True)}
    size = max(sizes.values())
    if size == 0 or len(set(sizes.values())) > 1:
        raise CaptureError(f"`dynamic_batch` needs inputs that agree on the size of dimension 0, got {sizes}.")
    wanted = min(max(size, batch.minimum, 2), batch.maximum)
    return tuple(tensor[torch.arange(wanted) % size] for tensor in example)


def sizes_of(example: Sequence[Tensor], inputs: Sequence[TensorSpec]) -> dict[str, int]:
    """Size of every dynamic dimension in the example."""
    return {
        size: tensor.shape[axis]
        for spec, tensor in zip(inputs, example, strict=True)
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str)
    }


def at_sizes(example: Sequence[Tensor], inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The example with other sizes: elements of the present one, repeated or cut."""
    return tuple(_of_shape(tensor, spec.at(sizes)) for tensor, spec in zip(example, inputs, strict=True))


def _of_shape(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, size in enumerate(shape):
        if size != tensor.shape[axis]:
            tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
    return tensor


def cast_floats(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in ``dtype`` if it holds floating-point numbers."""
    return tensor.to(dtype) if tensor.is_floating_point() and tensor.dtype != dtype else tensor

"""Real inputs, from wherever the user has them: a loader, a data set, a DataModule, tensors or arrays."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from exporters.errors import InputError
from exporters.signature import Signature, TensorSpec


def items_of(data: Any, *, what: str, training: bool) -> Iterable[Any]:
    """Batches or samples of data.

    Args:
        data: A loader, data set, DataModule, or one batch.
        what: Name of the user's argument, for messages.
        training: Whether a DataModule stands for its training data, or for its validation data.
    """
    if hasattr(data, "train_dataloader") and hasattr(data, "setup"):
        data.setup("fit" if training else "validate")
        data = data.train_dataloader() if training else data.val_dataloader()
    if isinstance(data, Mapping) or is_array(data):
        return [data]
    if isinstance(data, Iterable):
        return data
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[index] for index in range(len(data)))
    raise InputError(
        f"`{what}` must be a loader, a data set, a DataModule, an array or tensors, got {type(data).__name__}."
    )


def is_array(value: Any) -> bool:
    """Whether a value is an array or a tensor."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "numpy"))


def as_array(value: Any) -> np.ndarray:
    """An array, tensor or number as an array."""
    return np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)


def inputs_by_name(item: Any, signature: Signature, *, what: str) -> dict[str, np.ndarray]:
    """The network's inputs from a batch or sample; whatever follows them is left out.

    Raises:
        InputError: If one is missing, has another type or is not finite.
    """
    names = [spec.name for spec in signature.inputs]
    if isinstance(item, Mapping):
        missing = [name for name in names if name not in item]
        if missing:
            raise InputError(f"`{what}` must hold the inputs {names}, got {sorted(item)} without {missing}.")
        found = [item[name] for name in names]
    else:
        found = [item] if is_array(item) else list(item) if isinstance(item, Sequence) else []
        if len(found) < len(names):
            raise InputError(
                f"`{what}` must hold arrays for the inputs {names}, got {type(item).__name__}"
                f"{f' of {len(found)} entries' if found else ''}."
            )
    return {spec.name: _cast(as_array(value), spec, what) for spec, value in zip(signature.inputs, found, strict=False)}


def _cast(array: np.ndarray, spec: TensorSpec, what: str) -> np.ndarray:
    """The array in the input's type: floating-point and integer types may differ in width, not in kind."""
    kinds = {np.dtype(spec.dtype).kind, array.dtype.kind}
    if len(kinds) > 1 and kinds != {"i", "u"}:
        raise InputError(
            f"`{what}` must hold {spec.dtype} for input `{spec.name}`, got {array.dtype}; "
            f"preprocess it as in validation."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"`{what}` must hold finite values for input `{spec.name}`, got NaN or infinity.")
    return array.astype(spec.dtype, copy=False)


def split_samples(
    arrays: Mapping[str, np.ndarray], signature: Signature, *, what: str
) -> Iterator[dict[str, np.ndarray]]:
    """Single samples without a batch dimension, of a batch or of one sample.

    Raises:
        InputError: If shapes do not fit the network.
    """
    batched = {len(spec.shape) == arrays[spec.name].ndim for spec in signature.inputs}
    flat = {len(spec.shape) == arrays[spec.name].ndim + 1 for spec in signature.inputs}
    if flat == {True}:
        yield dict(arrays)
    elif batched == {True}:
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"`{what}` must hold inputs with as many samples each, got {sizes}.")
        for index in range(min(sizes.values())):
            yield {name: array[index] for name, array in arrays.items()}
    else:
        shapes = {name: array.shape for name, array in arrays.items()}
        expected = {spec.name: spec.shape for spec in signature.inputs}
        raise InputError(f"`{what}` must hold samples of shape {expected}, got {shapes}.")

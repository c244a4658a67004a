"""What goes into a network and what comes out: names, shapes, dtypes and the range of every dynamic dimension."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from exporters.errors import InputError

BATCH = "batch"


class DimensionRange(NamedTuple):
    """Sizes that a dynamic dimension accepts, both ends included."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output.

    Args:
        name: Name by which a session takes or returns the tensor.
        shape: One entry per dimension: a size, or for a dynamic dimension its name or an expression of names.
        dtype: NumPy name of the element type, such as ``"float32"``.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs of a network, in order.

    Args:
        inputs: What the network takes.
        outputs: What it returns.
        dimensions: Accepted sizes of every dynamic dimension named in the inputs' shapes; empty for a static network.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dimensions: Mapping[str, DimensionRange] = field(default_factory=dict)

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Raise `InputError` unless ``inputs`` has the names, dtypes and shapes that the network takes.

        Args:
            inputs: Arrays by input name.

        Raises:
            InputError: If a name is missing or unknown, a dtype or a size differs, a dynamic size is outside its
                range, or two inputs disagree on the size of one dynamic dimension.

        Example:
            >>> import numpy as np
            >>> from exporters.signature import DimensionRange, Signature, TensorSpec
            >>> signature = Signature(
            ...     inputs=(TensorSpec("x", ("batch", 3), "float32"),),
            ...     outputs=(TensorSpec("output", ("batch", 2), "float32"),),
            ...     dimensions={"batch": DimensionRange(1, 4)},
            ... )
            >>> signature.check({"x": np.zeros((5, 3), np.float32)})
            Traceback (most recent call last):
            exporters.errors.InputError: dimension `batch` of input `x` must be between 1 and 4, got 5.
        """
        if inputs.keys() != {spec.name for spec in self.inputs}:
            expected = ", ".join(f"`{spec.name}`" for spec in self.inputs)
            raise InputError(f"`inputs` must have exactly the names {expected}, got {sorted(inputs)}.")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            self._check_one(spec, inputs[spec.name], sizes)

    def _check_one(self, spec: TensorSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
        if not isinstance(array, np.ndarray):
            raise InputError(f"input `{spec.name}` must be a NumPy array, got {type(array).__name__}.")
        if array.dtype != spec.dtype:
            raise InputError(
                f"input `{spec.name}` must have dtype {spec.dtype}, got {array.dtype}; "
                f"convert it with `array.astype({spec.dtype!r})`."
            )
        if len(array.shape) != len(spec.shape):
            raise InputError(f"input `{spec.name}` must have shape {spec.shape}, got {array.shape}.")
        for expected, size in zip(spec.shape, array.shape, strict=True):
            if isinstance(expected, int):
                if size != expected:
                    raise InputError(f"input `{spec.name}` must have shape {spec.shape}, got {array.shape}.")
                continue
            low, high = self.dimensions[expected]
            if not low <= size <= high:
                raise InputError(
                    f"dimension `{expected}` of input `{spec.name}` must be between {low} and {high}, got {size}."
                )
            if sizes.setdefault(expected, size) != size:
                raise InputError(
                    f"dimension `{expected}` must be the same in every input, "
                    f"got {size} in `{spec.name}` and {sizes[expected]} before it."
                )

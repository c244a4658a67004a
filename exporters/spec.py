"""What a network has to take: one declaration for conversion, verification and profiling."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporters.errors import InputError
from exporters.signature import BATCH, DimensionRange, TensorSpec

_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """Inputs of a network with the range of every dynamic dimension and, if known, of the values.

    Args:
        inputs: Names (parameters of ``forward``), shapes, types and value ranges. A dynamic dimension is its name.
        dimensions: Accepted sizes of every name in the shapes.

    Raises:
        InputError: If names repeat, a dimension has no range or a range no dimension, or a range is empty.

    Example:
        >>> waveform = TensorSpec("waveform", ("batch", "time"), "float32", value_range=(-1.0, 1.0))
        >>> spec = ExportSpec(
        ...     inputs=(waveform,),
        ...     dimensions={"batch": DimensionRange(1, 8), "time": DimensionRange(8000, 160000, optimum=16000)},
        ... )
        >>> spec.draw({"batch": 2, "time": 8000}, seed=0)["waveform"].shape
        (2, 8000)
    """

    inputs: tuple[TensorSpec, ...]
    dimensions: Mapping[str, DimensionRange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that names, shapes and ranges fit together."""
        names = [spec.name for spec in self.inputs]
        if not names or len(set(names)) < len(names):
            raise InputError(f"`inputs` must have distinct names, at least one, got {names}.")
        used = {size for spec in self.inputs for size in spec.shape if isinstance(size, str)}
        if used != set(self.dimensions):
            raise InputError(
                f"`dimensions` must give the range of every name in the shapes, which are {sorted(used)}, "
                f"got {sorted(self.dimensions)}."
            )
        for name, sizes in self.dimensions.items():
            check_range(name, sizes)
        for spec in self.inputs:
            _check_tensor(spec)

    def typical_sizes(self) -> dict[str, int]:
        """One size for every dimension, at which a network is captured; at least 2, because 1 counts as a constant."""
        return {
            name: sizes.nearest(max(sizes.typical if name != BATCH or sizes.optimum else 2, 2))
            for name, sizes in self.dimensions.items()
        }

    def draw(self, sizes: Mapping[str, int], *, seed: int) -> dict[str, np.ndarray]:
        """Seeded inputs of the given sizes: uniform within the declared value range, else standard normal.

        Integers without a range are 0 or 1, which any vocabulary accepts.
        """
        generator = np.random.default_rng(seed)
        return {spec.name: draw(spec, spec.at(sizes), generator) for spec in self.inputs}


def check_range(name: str, sizes: DimensionRange) -> None:
    """Raise `InputError` unless a range holds at least two sizes and, if it has an optimum, that one."""
    numbers = (sizes.minimum, sizes.maximum, sizes.multiple)
    if not all(type(number) is int for number in numbers) or sizes.multiple < 1 or sizes.minimum < 1:
        raise InputError(f"dimension `{name}` must have whole numbers above 0, got {tuple(sizes)}.")
    if sizes.smallest >= sizes.largest:
        raise InputError(
            f"dimension `{name}` must have at least two sizes, got {sizes}; write a fixed size as a number."
        )
    if sizes.optimum is not None and not sizes.accepts(sizes.optimum):
        raise InputError(f"the optimum of dimension `{name}` must be {sizes}, got {sizes.optimum}.")


def draw(spec: TensorSpec, shape: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """One seeded array for an input; `ExportSpec.draw` says how."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        if spec.value_range is not None:
            return generator.uniform(*spec.value_range, shape).astype(dtype)
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind in "biu":
        low, high = (0, 1) if spec.value_range is None else spec.value_range
        return generator.integers(int(low), int(high), shape, endpoint=True).astype(dtype)
    raise InputError(f"`inputs` must be given for elements of type {spec.dtype}, got none for input `{spec.name}`.")


def _check_tensor(spec: TensorSpec) -> None:
    if any(isinstance(size, int) and size < 1 for size in spec.shape):
        raise InputError(f"sizes of input `{spec.name}` must be above 0, got shape {spec.shape}.")
    if spec.dtype not in _DTYPES:
        raise InputError(f"the type of input `{spec.name}` must be one of {', '.join(_DTYPES)}, got {spec.dtype!r}.")
    if spec.value_range is not None:
        low, high = spec.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"`value_range` of input `{spec.name}` must rise, got {spec.value_range}.")

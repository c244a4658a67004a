"""What goes into a network and what comes out: names, shapes, dtypes and the range of every dynamic dimension."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np

from exporters.errors import InputError

BATCH = "batch"


class DimensionRange(NamedTuple):
    """Sizes that a dynamic dimension accepts, both ends included.

    Args:
        minimum: Smallest size.
        maximum: Largest size.
        optimum: Size for which a runtime tunes and at which latency is measured; ``None`` leaves it to `typical`.
        multiple: Accepted sizes are multiples of this, such as the hop of a speech encoder.

    Example:
        >>> from exporters.signature import DimensionRange
        >>> DimensionRange(800, 160000, multiple=320).typical
        80320
    """

    minimum: int
    maximum: int
    optimum: int | None = None
    multiple: int = 1

    @property
    def typical(self) -> int:
        """The optimum, or the accepted size nearest to the middle."""
        return self.optimum if self.optimum is not None else self.nearest((self.minimum + self.maximum + 1) // 2)

    @property
    def smallest(self) -> int:
        """The smallest accepted size."""
        return -(-self.minimum // self.multiple) * self.multiple

    @property
    def largest(self) -> int:
        """The largest accepted size."""
        return self.maximum // self.multiple * self.multiple

    def nearest(self, size: int) -> int:
        """The accepted size nearest to ``size``, the larger of two."""
        rounded = (2 * size + self.multiple) // (2 * self.multiple) * self.multiple
        return min(max(rounded, self.smallest), self.largest)

    def accepts(self, size: int) -> bool:
        """Whether ``size`` is one of the sizes."""
        return self.minimum <= size <= self.maximum and size % self.multiple == 0

    def __str__(self) -> str:
        """The range in words."""
        steps = f" in steps of {self.multiple}" if self.multiple > 1 else ""
        return f"{self.minimum} to {self.maximum}{steps}"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output.

    Args:
        name: Name by which a session takes or returns the tensor.
        shape: One entry per dimension: a size, or for a dynamic dimension its name or an expression of names.
        dtype: NumPy name of the element type, such as ``"float32"``.
        value_range: Smallest and largest value that an input takes; ``None`` if that was not declared.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    value_range: tuple[float, float] | None = field(default=None, repr=False)

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of a tensor."""
        ends = content["value_range"]
        return cls(content["name"], tuple(content["shape"]), content["dtype"], ends and (ends[0], ends[1]))

    def at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every dynamic dimension at its size in ``sizes``."""
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)


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
            exporters.errors.InputError: dimension `batch` of input `x` must be 1 to 4, got 5.
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
            accepted = self.dimensions[expected]
            if not accepted.accepts(size):
                raise InputError(f"dimension `{expected}` of input `{spec.name}` must be {accepted}, got {size}.")
            if sizes.setdefault(expected, size) != size:
                raise InputError(
                    f"dimension `{expected}` must be the same in every input, "
                    f"got {size} in `{spec.name}` and {sizes[expected]} before it."
                )

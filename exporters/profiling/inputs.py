"""Arrays to run a network on when the user gives none."""

from collections.abc import Mapping, Sequence

import numpy as np

from exporters.errors import InputError
from exporters.profiling.runner.options import check_count
from exporters.signature import BATCH, DimensionRange, TensorSpec
from exporters.spec import draw


def random_inputs(
    specs: Sequence[TensorSpec],
    *,
    batch_size: int,
    seed: int,
    dimensions: Mapping[str, DimensionRange] | None = None,
) -> dict[str, np.ndarray]:
    """Seeded arrays that fit the inputs of a network.

    Values are uniform within the declared range. Without one, floating-point elements follow the standard normal
    distribution, and integers and booleans are 0 or 1 with equal probability, which any vocabulary accepts.

    Args:
        specs: Inputs of the network.
        batch_size: Size of every dimension named ``"batch"``.
        seed: Seed of the random generator.
        dimensions: Ranges of the other dynamic dimensions, which take their optimum or the middle.

    Returns:
        One contiguous array per input, by name.

    Raises:
        InputError: If a dimension other than the batch is dynamic and its range is not known, or an element type
            cannot be drawn.

    Example:
        >>> from exporters.profiling.inputs import random_inputs
        >>> from exporters.signature import TensorSpec
        >>> random_inputs([TensorSpec("x", ("batch", 3), "float16")], batch_size=2, seed=0)["x"].shape
        (2, 3)
    """
    generator = np.random.default_rng(seed)
    sizes = {name: accepted.typical for name, accepted in (dimensions or {}).items()} | {BATCH: batch_size}
    for spec in specs:
        if not {size for size in spec.shape if isinstance(size, str)} <= set(sizes):
            raise InputError(
                f"`inputs` must be given for a session with dynamic dimensions besides the batch, "
                f"got none and input `{spec.name}` of shape {spec.shape}."
            )
    return {spec.name: draw(spec, spec.at(sizes), generator) for spec in specs}


def choose_inputs(
    specs: Sequence[TensorSpec],
    dimensions: Mapping[str, DimensionRange],
    *,
    batch_size: int,
    seed: int,
    inputs: Mapping[str, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """The user's arrays, or random ones, of the batch size to be measured.

    Args:
        specs: Inputs of the network.
        dimensions: Ranges of its dynamic dimensions.
        batch_size: Samples per run.
        seed: Seed of the random inputs.
        inputs: Arrays given by the user; ``None`` for random ones.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If a number is outside its range.
        InputError: If the network or the arrays have another batch size.
    """
    check_count("batch_size", batch_size, minimum=1)
    check_count("seed", seed, minimum=0)
    check_batch_size(specs, inputs, batch_size=batch_size)
    if inputs is None:
        return random_inputs(specs, batch_size=batch_size, seed=seed, dimensions=dimensions)
    return dict(inputs)


def check_batch_size(specs: Sequence[TensorSpec], inputs: Mapping[str, np.ndarray] | None, *, batch_size: int) -> None:
    """Raise `InputError` unless the network, and the inputs if there are any, have this batch size.

    The batch is every dimension named ``"batch"``; in a network without one, the first dimension of the first input.

    Args:
        specs: Inputs of the network.
        inputs: Arrays given by the user.
        batch_size: Batch size to measure.

    Raises:
        InputError: If the network's batch is static and of another size, or an array has another batch size.
    """
    axes = [(spec, axis) for spec in specs for axis, size in enumerate(spec.shape) if size == BATCH]
    if not axes:
        axes = [(spec, 0) for spec in specs if spec.shape][:1]
    for spec, axis in axes:
        size = spec.shape[axis]
        if isinstance(size, int) and size != batch_size:
            raise InputError(
                f"`batch_size` must be {size}, the static batch size of input `{spec.name}`, got {batch_size}; "
                f"pass `batch_size={size}` or export with `dynamic_batch=True`."
            )
        array = None if inputs is None else inputs.get(spec.name)
        if array is not None and array.shape[axis : axis + 1] != (batch_size,):
            raise InputError(
                f"`batch_size` must be the batch size of `inputs`, got {batch_size} and an array of shape "
                f"{array.shape} for input `{spec.name}`."
            )

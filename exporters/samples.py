"""Inputs that look like the example but are not: what an export is verified on."""

from collections.abc import Mapping

import numpy as np

from exporters.signature import Signature


def verification_batches(
    example: Mapping[str, np.ndarray], signature: Signature, *, seed: int = 0, count: int = 3
) -> list[dict[str, np.ndarray]]:
    """Draw batches from the example's distribution.

    Floating-point inputs are normal with the example's mean and standard deviation, clipped to its range; where the
    example is constant they are standard normal around it. Integers are uniform between the example's smallest and
    largest, Booleans as often true as in the example.

    Args:
        example: Arrays by input name.
        signature: The network's inputs; every dynamic dimension is drawn at its smallest, its largest and an odd size.
        seed: Seed of the first batch; each further batch takes the next.
        count: Number of batches of a static network.

    Returns:
        Batches by input name, of the example's dtypes.
    """
    if not signature.dimensions:
        sizes: list[dict[str, int]] = [{} for _ in range(count)]
    else:
        sizes = [
            dict(zip(signature.dimensions, picks, strict=True))
            for picks in zip(*(_sizes(*ends) for ends in signature.dimensions.values()), strict=True)
        ]
    return [
        {
            spec.name: _draw(
                example[spec.name],
                tuple(size if isinstance(size, int) else chosen[size] for size in spec.shape),
                np.random.default_rng(seed + index),
            )
            for spec in signature.inputs
        }
        for index, chosen in enumerate(sizes)
    ]


def _sizes(minimum: int, maximum: int) -> tuple[int, int, int]:
    middle = (minimum + maximum) // 2
    odd = min(middle | 1, maximum)
    return minimum, odd, maximum


def _draw(example: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if example.dtype == np.bool_:
        return np.asarray(generator.random(shape) < example.mean())
    low, high = example.min(), example.max()
    if np.issubdtype(example.dtype, np.integer):
        return generator.integers(low, high, shape, dtype=example.dtype, endpoint=True)
    if low == high:
        return generator.normal(low, 1.0, shape).astype(example.dtype)
    return generator.normal(example.mean(), example.std(), shape).clip(low, high).astype(example.dtype)

"""Inputs that look like the example but are not: what an export is verified on."""

from collections.abc import Mapping, Sequence

import numpy as np

from exporters.signature import DimensionRange, Signature, TensorSpec

_REAL = 3
_NOISE = 0.1


def verification_batches(
    example: Mapping[str, np.ndarray],
    signature: Signature,
    *,
    samples: Sequence[Mapping[str, np.ndarray]] = (),
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """Draw batches that resemble the example, at every declared extreme of the sizes.

    Floating-point inputs are the example's samples in random order, repeated or cut to the size, with normal noise of a
    tenth of the example's standard deviation, clipped to its range or to the one declared: white noise would send a
    network for images or sound where it was never meant to work, and where its rounding errors say nothing. Where the
    example is constant they are standard normal around it. Integers are uniform between the
    example's smallest and largest, Booleans as often true as in the example. The last batch has a tenth of the
    amplitude: errors that large values hide show there.

    Args:
        example: Arrays by input name.
        signature: The network's inputs. A network with dynamic dimensions is run with each of them at its smallest, at
            an odd size, at its typical size, and with each in turn at its largest while the others are smallest.
        samples: Real inputs, of which the first three are compared, too.
        seed: Seed of the first batch; each further batch takes the next.

    Returns:
        Batches by input name, of the example's dtypes.
    """
    sizes = _sizes(signature.dimensions) if signature.dimensions else [{}, {}, {}]
    drawn = [
        {
            spec.name: _draw(example[spec.name], spec, spec.at(chosen), np.random.default_rng(seed + index))
            for spec in signature.inputs
        }
        for index, chosen in enumerate(sizes)
    ]
    drawn[-1] = {name: _quiet(array) for name, array in drawn[-1].items()}
    return drawn + [dict(sample) for sample in samples[:_REAL]]


def _sizes(dimensions: Mapping[str, DimensionRange]) -> list[dict[str, int]]:
    smallest = {name: sizes.smallest for name, sizes in dimensions.items()}
    return [
        smallest,
        {name: _odd(sizes) for name, sizes in dimensions.items()},
        *({**smallest, name: sizes.largest} for name, sizes in dimensions.items()),
        {name: sizes.typical for name, sizes in dimensions.items()},
    ]


def _odd(sizes: DimensionRange) -> int:
    middle = (sizes.smallest + sizes.largest) // 2 // sizes.multiple
    return sizes.nearest((middle | 1) * sizes.multiple)


def _quiet(array: np.ndarray) -> np.ndarray:
    return array * array.dtype.type(0.1) if array.dtype.kind == "f" else array


def _draw(example: np.ndarray, spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if example.dtype == np.bool_:
        return np.asarray(generator.random(shape) < example.mean())
    low, high = spec.value_range or (example.min(), example.max())
    if np.issubdtype(example.dtype, np.integer):
        return generator.integers(int(low), int(high), shape, dtype=example.dtype, endpoint=True)
    if low == high:
        return generator.normal(low, 1.0, shape).astype(example.dtype)
    noise = generator.normal(0.0, _NOISE * example.std(), shape)
    return (_of_shape(example, shape, generator) + noise).clip(low, high).astype(example.dtype)


def _of_shape(example: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Elements of the example, repeated or cut, its samples in random order."""
    if not shape:
        return example
    first = generator.permutation(max(shape[0], len(example)))[: shape[0]] % len(example)
    others = (np.arange(size) % old for size, old in zip(shape[1:], example.shape[1:], strict=True))
    chosen: np.ndarray = example[np.ix_(first, *others)]
    return chosen

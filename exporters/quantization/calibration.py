"""The real inputs that set the ranges of a quantised network."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np

from exporters.data import inputs_by_name, items_of, split_samples
from exporters.errors import InputError
from exporters.quantization.report import CalibrationRecord
from exporters.signature import Signature

Sample = Mapping[str, np.ndarray]

# Of the samples, this share is not calibrated on but compared on; at least one.
_HELD_OUT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Inputs that set the ranges of a quantised network.

    Args:
        batches: Inputs by name, each with the smallest batch that the network takes.
        seed: Seed by which they were chosen.
        held_out: Further batches, on which recipes are compared.
    """

    batches: tuple[Sample, ...]
    seed: int
    held_out: tuple[Sample, ...]

    @property
    def record(self) -> CalibrationRecord:
        """Count, seed and hash, for the manifest."""
        digest = hashlib.sha256()
        for batch in (*self.batches, *self.held_out):
            for name, array in batch.items():
                digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        count = sum(len(next(iter(batch.values()))) for batch in (*self.batches, *self.held_out))
        return CalibrationRecord(count=count, seed=self.seed, sha256=digest.hexdigest())

    @classmethod
    def from_data(cls, data: Any, signature: Signature, *, samples: int = 300, seed: int = 0) -> Self:
        """Choose samples from data.

        Args:
            data: A loader, data set or other iterable of inputs (a tensor or array, a sequence of them in the order of
                the network's inputs with further entries such as labels ignored, or a mapping by name), with or without
                a batch dimension; a LightningDataModule, whose training data is taken; or one array of samples.
            signature: Inputs of the network.
            samples: Largest number of samples; the first ``4 * samples`` are looked at, and these are drawn from them.
            seed: Seed of the draw.

        Returns:
            The samples.

        Raises:
            InputError: If an input is missing, has another type or shape, is not finite, or if there are fewer than
                two batches.

        Example:
            >>> import numpy as np
            >>> from exporters.signature import Signature, TensorSpec
            >>> signature = Signature(inputs=(TensorSpec("x", (1, 3), "float32"),), outputs=())
            >>> images = np.zeros((10, 3), np.float32)
            >>> calibration = Calibration.from_data([(images, np.arange(10))], signature)
            >>> len(calibration.batches), len(calibration.held_out), calibration.record.count
            (8, 2, 10)
        """
        found = list(islice(real_batches(data, signature), 4 * samples))
        size = _batch_size(signature)
        wanted = min(len(found), max(samples // size, 2))
        if wanted < 2:
            raise InputError(
                f"`calibration` must hold at least {2 * size} samples, got {len(found) * size}; give more data."
            )
        order = np.random.default_rng(seed).permutation(len(found))[:wanted]
        chosen = [found[index] for index in order]
        kept = max(1, round(_HELD_OUT * wanted))
        return cls(batches=tuple(chosen[kept:]), seed=seed, held_out=tuple(chosen[:kept]))


def real_batches(data: Any, signature: Signature) -> Iterator[Sample]:
    """Inputs of a network from data, in batches of the smallest size that it takes; a rest that is smaller is left out.

    Args:
        data: As for `Calibration.from_data`.
        signature: Inputs of the network.

    Yields:
        One batch, by input name.

    Raises:
        InputError: If an input is missing, or has another type or shape, or is not finite.
    """
    size = _batch_size(signature)
    pending: list[dict[str, np.ndarray]] = []
    for item in items_of(data, what="calibration", training=True):
        inputs = inputs_by_name(item, signature, what="calibration")
        for sample in split_samples(inputs, signature, what="calibration"):
            pending.append(sample)
            if len(pending) == size:
                batch = {spec.name: np.stack([each[spec.name] for each in pending]) for spec in signature.inputs}
                signature.check(batch)
                yield batch
                pending = []


def _batch_size(signature: Signature) -> int:
    size = signature.inputs[0].shape[0] if signature.inputs[0].shape else 1
    return signature.dimensions[size].smallest if isinstance(size, str) else size

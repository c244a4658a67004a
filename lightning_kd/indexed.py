"""Samples that know their place in the data set, for methods that remember each of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from lightning_kd.errors import SetupError

INDEX_KEY = "index"


class IndexedDataset(Dataset[Any]):
    """A data set whose samples end with their index.

    A tuple or list becomes a tuple with the index as its last item, a mapping gets the key ``"index"``. `Step.indices`
    finds both. Indices are those of ``dataset``, whatever a sampler does; to distil on a part of a data set, wrap the
    part: ``IndexedDataset(Subset(dataset, chosen))``.

    Args:
        dataset: A data set with a length and with samples by index.

    Raises:
        SetupError: If ``dataset`` has no length or no samples by index.

    Example:
        >>> IndexedDataset([("image", "cat"), ("picture", "dog")])[1]
        ('picture', 'dog', 1)
    """

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise SetupError(
                f"`dataset` must have a length and samples by index, got {type(dataset).__name__}: "
                "samples of a stream have no index."
            )
        self.dataset = dataset

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return a sample and its index.

        Args:
            index: Which sample; a negative one counts from the end.

        Returns:
            The sample with its index, never negative.

        Raises:
            SetupError: If the sample is neither a sequence nor a mapping, or has an ``"index"`` already.
        """
        sample = self.dataset[index]
        place = index + len(self) if index < 0 else index
        if isinstance(sample, Mapping):
            if INDEX_KEY in sample:
                raise SetupError(f"`dataset` must have samples without a key {INDEX_KEY!r}: rename it.")
            return {**sample, INDEX_KEY: place}
        if isinstance(sample, Sequence) and not isinstance(sample, str | bytes):
            return (*sample, place)
        raise SetupError(
            f"`dataset` must have samples that are tuples or mappings, got {type(sample).__name__}: "
            "let it return (image, label), for example."
        )

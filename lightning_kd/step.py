"""What a training step knows beside the calls of the two models: labels, sample indices and the progress."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_kd.errors import SetupError
from lightning_kd.schedules import START, Progress

BatchPlace = int | str | Callable[[Any], Tensor]
_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
_INDEX_KEYS = ("index", "indices")


@dataclass(frozen=True, slots=True)
class Step:
    """One training step, as far as objectives may ask.

    Attributes:
        progress: How far training is.
        batch: The batch that ``training_step`` got.
        labels_at: Where the labels are: an index or key of the batch, or a function of it; ``None`` takes the second
            item of a sequence, or ``"labels"``, ``"label"``, ``"targets"``, ``"target"`` or ``"y"`` of a mapping.
        indices_at: Likewise for the samples' indices in the data set; ``None`` takes the last item of a sequence of
            at least three, or ``"index"`` or ``"indices"`` of a mapping, where `IndexedDataset` puts them.

    Example:
        >>> Step(batch=(torch.zeros(2, 3), torch.tensor([1, 0]))).labels
        tensor([1, 0])
    """

    progress: Progress = START
    batch: Any = None
    labels_at: BatchPlace | None = None
    indices_at: BatchPlace | None = None

    @property
    def labels(self) -> Tensor:
        """Labels of the batch: class indices of shape ``(N,)`` or ``(N, H, W)``, or mixed ones with classes on axis 1.

        Raises:
            SetupError: If the batch holds none where they are looked for.
        """
        place = self.labels_at
        if place is None:
            place = _first_key(self.batch, _LABEL_KEYS) if isinstance(self.batch, Mapping) else 1
        return _read(self.batch, place, "labels")

    @property
    def class_indices(self) -> Tensor:
        """Labels as class indices; mixed ones count as their largest class."""
        labels = self.labels
        return labels.argmax(dim=1) if labels.is_floating_point() and labels.ndim > 1 else labels.long()

    @property
    def indices(self) -> Tensor:
        """Indices of the batch's samples in their data set, shape ``(N,)``.

        Raises:
            SetupError: If the batch holds none where they are looked for.
        """
        place = self.indices_at
        if place is None:
            if isinstance(self.batch, Mapping):
                place = _first_key(self.batch, _INDEX_KEYS)
            else:
                place = -1 if isinstance(self.batch, Sequence) and len(self.batch) > 2 else None
        indices = _read(self.batch, place, "indices")
        if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
            raise SetupError(
                f"`indices` must be whole numbers of shape (N,), got {indices.dtype} of shape "
                f"{tuple(indices.shape)}: {_CURES['indices']}"
            )
        return indices


_CURES = {
    "labels": "pass labels=, an index or key of the batch or a function of it, to KnowledgeDistillation.",
    "indices": "wrap the training data, IndexedDataset(dataset), or pass indices=, an index or key of the batch or a "
    "function of it, to KnowledgeDistillation.",
}


def _first_key(batch: Mapping[Any, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in batch), None)


def _read(batch: Any, place: BatchPlace | None, what: str) -> Tensor:
    try:
        value = None if place is None else place(batch) if callable(place) else batch[place]
    except (IndexError, KeyError, TypeError) as error:
        raise SetupError(f"`{what}`: {place!r} is not in the batch, {_describe(batch)}: {_CURES[what]}") from error
    if not isinstance(value, Tensor):
        found = "none were found" if place is None else f"at {place!r} there is {type(value).__name__}"
        raise SetupError(f"an objective needs `{what}`, and {found} in the batch, {_describe(batch)}: {_CURES[what]}")
    return value


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a mapping with {list(batch)}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"of type {type(batch).__name__}"

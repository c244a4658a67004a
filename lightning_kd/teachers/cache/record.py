"""What is stored of one sample: a record of fixed size, as NumPy and as PyTorch read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_kd._checks import check_choice

Precision = Literal["float16", "float32"]
PRECISIONS: tuple[Precision, ...] = ("float16", "float32")
Records = NDArray[Any]
FieldList = tuple[tuple[str, str, tuple[int, ...]], ...]

# Unsigned types are read as signed ones of their size, and the sign taken off: PyTorch computes little with them.
_TORCH: Mapping[str, tuple[torch.dtype, int | None]] = {
    "<f2": (torch.float16, None),
    "<f4": (torch.float32, None),
    "<u2": (torch.int16, 0xFFFF),
    "<u4": (torch.int32, 0xFFFFFFFF),
    "|u1": (torch.uint8, None),
}
LARGEST_SHORT = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFormat:
    """The fields of a record, in the order in which they are stored, without gaps and little-endian.

    First comes what replays the augmentation (``seed``, or ``crop`` and ``flip``), then ``classes`` and
    ``probabilities`` of the K most likely classes or all ``logits``, then one field per tapped feature.

    Attributes:
        replay: Fields that replay the augmentation: name, NumPy type, shape.
        class_count: Number of classes C; 0 if no output is stored.
        top_k: How many probabilities are stored; ``None`` stores the logits of all classes.
        logits_shape: Shape of one sample's logits; of use without ``top_k``.
        features: Shape of one sample's feature by tap path.
        precision: Type of probabilities, logits and features.

    Raises:
        ValueError: If ``top_k`` is not between 1 and ``class_count``, or ``precision`` is unknown.

    Example:
        >>> form = RecordFormat(replay=(("seed", "<u4", ()),), class_count=1000, top_k=10)
        >>> form.size_bytes, form.dtype.names
        (44, ('seed', 'classes', 'probabilities'))
    """

    replay: FieldList = ()
    class_count: int = 0
    top_k: int | None = None
    logits_shape: tuple[int, ...] = ()
    features: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    precision: Precision = "float16"

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("precision", self.precision, PRECISIONS)
        if self.top_k is not None and not 1 <= self.top_k <= self.class_count:
            raise ValueError(f"`top_k` must be between 1 and the {self.class_count} classes, got {self.top_k}.")

    @property
    def fields(self) -> FieldList:
        """Every field: name, NumPy type, shape."""
        real = {"float16": "<f2", "float32": "<f4"}[self.precision]
        output: FieldList = ()
        if self.class_count and self.top_k is None:
            output = (("logits", real, self.logits_shape),)
        elif self.top_k is not None:
            index = "<u2" if self.class_count <= LARGEST_SHORT else "<u4"
            output = (("classes", index, (self.top_k,)), ("probabilities", real, (self.top_k,)))
        features = tuple((feature_field(path), real, tuple(shape)) for path, shape in self.features.items())
        return (*self.replay, *output, *features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The record as a NumPy type."""
        return np.dtype(list(self.fields))

    @property
    def size_bytes(self) -> int:
        """Bytes of one record."""
        return self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """The format as plain values, with the fields and the size spelled out for readers without this package."""
        return {
            "fields": [[name, kind, list(shape)] for name, kind, shape in self.fields],
            "size_bytes": self.size_bytes,
            "replay": [[name, kind, list(shape)] for name, kind, shape in self.replay],
            "class_count": self.class_count,
            "top_k": self.top_k,
            "logits_shape": list(self.logits_shape),
            "features": {path: list(shape) for path, shape in self.features.items()},
            "precision": self.precision,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        return cls(
            replay=tuple((name, kind, tuple(shape)) for name, kind, shape in content["replay"]),
            class_count=content["class_count"],
            top_k=content["top_k"],
            logits_shape=tuple(content["logits_shape"]),
            features={path: tuple(shape) for path, shape in content["features"].items()},
            precision=content["precision"],
        )

    def read(self, rows: Tensor, name: str) -> Tensor:
        """One field of many records, on the device that they are on.

        Args:
            rows: Records as bytes, shape ``(..., size_bytes)``, uint8.
            name: Name of the field.

        Returns:
            Its values, shape ``(..., *shape of the field)``; whole numbers are int64.
        """
        _, kind, shape = next(entry for entry in self.fields if entry[0] == name)
        fields: Any = self.dtype.fields
        offset = int(fields[name][1])
        size = np.dtype(kind).itemsize * prod(shape)
        torch_type, mask = _TORCH[kind]
        # A copy, because a view needs an offset that is a multiple of the value's size.
        values = rows[..., offset : offset + size].clone(memory_format=torch.contiguous_format).view(torch_type)
        if mask is not None:
            values = values.to(torch.int64) & mask
        return values.reshape(*rows.shape[:-1], *shape)


def feature_field(path: str) -> str:
    """Name of the field that stores the feature at a tap path."""
    return f"feature:{path}"


def most_likely(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Probabilities of the ``count`` most likely classes, in descending order, and their classes.

    Args:
        logits: Shape ``(N, C)``.
        count: How many.

    Returns:
        Probabilities in float32 and classes in int64, both of shape ``(N, count)``.
    """
    probabilities, classes = logits.float().softmax(dim=-1).topk(count, dim=-1)
    return probabilities, classes


def fill(records: Records, name: str, values: Tensor | Sequence[Any]) -> None:
    """Write the values of one field of all records."""
    records[name] = values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def confidence(record: Any) -> float:
    """The teacher's largest probability, of one record with an output."""
    if "probabilities" in record.dtype.names:
        return float(record["probabilities"].max())
    logits = record["logits"].astype(np.float64)
    return float(1.0 / np.exp(logits - logits.max()).sum())

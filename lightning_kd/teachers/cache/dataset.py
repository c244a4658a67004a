"""The training data beside the teacher's records: every sample comes as the teacher saw it, with what it said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_kd._checks import check_choice
from lightning_kd.errors import SetupError
from lightning_kd.indexed import INDEX_KEY
from lightning_kd.teachers.cache.calibration import RegionCalibration
from lightning_kd.teachers.cache.mixing import SelfMix
from lightning_kd.teachers.cache.record import Records, confidence
from lightning_kd.teachers.cache.replay import SEED_LIMIT, Replay
from lightning_kd.teachers.cache.shards import ShardReader

RECORD_KEY = "teacher_record"
SHARE_BYTES = 4
Choice = Literal["epoch", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Which of the stored epochs or crops of a sample are taken.

    Attributes:
        choice: ``"epoch"`` takes one after the other as epochs pass, ``"random"`` any.
        crops: How many views of each sample a batch holds: the batch becomes so many times larger, and an image is read
            once for all of them (FKD uses 4).
        self_mix: Exchanges regions among the crops of an image; ``None`` leaves them as they are.

    Raises:
        ValueError: If ``choice`` is unknown, ``crops`` is below 1, or ``self_mix`` has only one crop to mix.
    """

    choice: Choice = "epoch"
    crops: int = 1
    self_mix: SelfMix | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_choice("choice", self.choice, ("epoch", "random"))
        least = 1 if self.self_mix is None else 2
        if self.crops < least:
            raise ValueError(f"`crops` must be at least {least}, got {self.crops}.")


class CachedDataset(Dataset[Any]):
    """A data set whose samples come with the teacher's record; made by `TeacherCache.dataset`.

    A tuple ends with the record and the index, ``(image, label, record, index)``; a mapping gets the keys
    ``"teacher_record"`` and ``"index"``. `TeacherCache` finds the records in the batch, `Step.indices` the indices.
    Records are read by the workers of a `DataLoader`, so that a training step reads no file and waits for no device.

    Args:
        dataset: The data set that the cache was written from.
        replay: Repeats the augmentation.
        reader: The cache.
        epoch: Number of the epoch, shape ``()``, in memory that workers share.
        views: Which views are taken.
        calibration: Leaves out crops by the teacher's confidence; ``None`` takes all.
    """

    def __init__(
        self,
        dataset: Any,
        replay: Replay,
        reader: ShardReader,
        *,
        epoch: Tensor,
        views: Views,
        calibration: RegionCalibration | None = None,
    ) -> None:
        if views.crops > reader.contract.views:
            raise SetupError(
                f"`crops` must not exceed the {reader.contract.views} views of the cache, got {views.crops}."
            )
        self.dataset = dataset
        self._replay = replay
        self._reader = reader
        self._epoch = epoch
        self._views = views
        self._calibration = calibration

    def __len__(self) -> int:
        """Return the number of samples; each gives as many items as there are crops."""
        return self._reader.contract.samples

    def __getitem__(self, index: int) -> Any:
        """Return a sample; of several crops the first one.

        Args:
            index: Which sample; a negative one counts from the end.

        Returns:
            The sample with record and index.
        """
        return self.__getitems__([index + len(self) if index < 0 else index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return all crops of several samples, those of one sample behind each other; `DataLoader` calls this."""
        chosen = [int(index) for index in indices]
        rows = self._rows(chosen)
        if self._views.self_mix is not None:
            return [item for index, own in zip(chosen, rows, strict=True) for item in self._mixed(index, own)]
        samples = [self._replay.repeat(self.dataset, *pair) for pair in zip(chosen, self._named(rows), strict=True)]
        records = pack(rows.reshape(-1, 1, rows.shape[-1]), np.ones((rows.shape[0] * rows.shape[1], 1))).unbind()
        each = [(sample, index) for index, crops in zip(chosen, samples, strict=True) for sample in crops]
        return [extended(sample, record, index) for (sample, index), record in zip(each, records, strict=True)]

    def set_epoch(self, epoch: int) -> None:
        """Take the views of this epoch from now on, in all workers; in ``fit`` the teacher calls it.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch.fill_(epoch)

    def _mixed(self, index: int, rows: Records) -> list[Any]:
        """The crops of one image with regions of each other."""
        samples = self._replay.repeat(self.dataset, index, self._named(rows))
        mixtures = (self._views.self_mix or SelfMix())(samples, np.random.default_rng(_draw()))
        pairs = np.stack([rows[[own, mixture.partner]] for own, mixture in enumerate(mixtures)])
        records = pack(pairs, np.array([[mixture.share, 1 - mixture.share] for mixture in mixtures]))
        return [extended(m.sample, record, index) for m, record in zip(mixtures, records.unbind(), strict=True)]

    def _rows(self, indices: Sequence[int]) -> Records:
        """Records of the views that are taken, shape ``(samples, crops, size)``."""
        if self._calibration is None and self._views.choice == "epoch":
            return np.stack([self._reader.rows(view, indices) for view in self._order()[: self._views.crops]], axis=1)
        return np.stack([self._chosen(index) for index in indices])

    def _chosen(self, index: int) -> Records:
        """Records of one sample; where too few are accepted, the surest of the others too."""
        taken: list[Records] = []
        refused: list[tuple[float, Records]] = []
        for view in self._order():
            row = self._reader.rows(view, [index])[0]
            sure = 1.0 if self._calibration is None else confidence(self._named(row)[()])
            if self._calibration is None or self._calibration.accepts(sure):
                taken.append(row)
            else:
                refused.append((sure, row))
            if len(taken) == self._views.crops:
                break
        refused.sort(key=lambda pair: -pair[0])
        return np.stack([*taken, *(row for _, row in refused)][: self._views.crops])

    def _order(self) -> list[int]:
        """All views, in the order in which they are tried."""
        count = self._reader.contract.views
        if self._views.choice == "random":
            order: list[int] = np.random.default_rng(_draw()).permutation(count).tolist()
            return order
        first = int(self._epoch) * self._views.crops
        return [(first + step) % count for step in range(count)]

    def _named(self, rows: Records) -> Records:
        named: Records = np.ascontiguousarray(rows).view(self._reader.contract.record.dtype)[..., 0]
        return named


def _draw() -> int:
    """A seed from PyTorch's generator, which `DataLoader` starts anew in each worker and epoch."""
    return int(torch.randint(SEED_LIMIT, ()))


def pack(rows: Records, shares: Records) -> Tensor:
    """Records and their shares of a sample as bytes.

    Args:
        rows: Shape ``(N, R, size)``, uint8.
        shares: Numbers with sum 1 for each sample, shape ``(N, R)``.

    Returns:
        Shape ``(N, R, 4 + size)``, uint8: each record behind its share, a float32.
    """
    packed = np.empty((*rows.shape[:2], SHARE_BYTES + rows.shape[2]), dtype=np.uint8)
    packed[..., :SHARE_BYTES] = shares.astype("<f4")[..., None].view(np.uint8)
    packed[..., SHARE_BYTES:] = rows
    return torch.from_numpy(packed)


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Records and shares of a batch.

    Args:
        packed: What `pack` gave, one by one and collated: shape ``(N, R, 4 + size)``, uint8.

    Returns:
        Records as bytes, shape ``(N, R, size)``, and shares in float32, shape ``(N, R)``.
    """
    shares = packed[..., :SHARE_BYTES].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return packed[..., SHARE_BYTES:], shares[..., 0]


def extended(sample: Any, record: Tensor, index: int) -> Any:
    """A sample with its record and index."""
    if isinstance(sample, Mapping):
        return {**sample, RECORD_KEY: record, INDEX_KEY: index}
    if isinstance(sample, Sequence) and not isinstance(sample, str | bytes):
        return (*sample, record, index)
    raise SetupError(
        f"`dataset` must have samples that are tuples or mappings, got {type(sample).__name__}: "
        "let it return (image, label), for example."
    )

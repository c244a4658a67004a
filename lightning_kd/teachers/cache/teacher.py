"""The teacher that was asked beforehand: its outputs and features are read from disk."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_choice
from lightning_kd.errors import CacheError, SetupError
from lightning_kd.schedules import Progress
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.teachers.cache.calibration import RegionCalibration
from lightning_kd.teachers.cache.contract import Contract, Section, check_contract
from lightning_kd.teachers.cache.dataset import RECORD_KEY, SHARE_BYTES, CachedDataset, Views, pack, unpack
from lightning_kd.teachers.cache.densify import RESTS, Rest, as_logits, densify
from lightning_kd.teachers.cache.fingerprint import describe, transform_of, versions
from lightning_kd.teachers.cache.probes import check_probes
from lightning_kd.teachers.cache.record import RecordFormat, feature_field
from lightning_kd.teachers.cache.replay import NoReplay, Replay
from lightning_kd.teachers.cache.shards import ShardReader, shared_zeros
from lightning_kd.teachers.cache.skeleton import skeleton
from lightning_kd.teachers.cache.storage import Storage
from lightning_kd.teachers.cache.writer import teacher_section
from lightning_kd.teachers.protocol import BaseTeacher, Knowledge, Teacher

RecordPlace = int | str | Callable[[Any], Tensor]


class TeacherCache(BaseTeacher):
    """Teacher outputs and features that `CacheWriter` or ``lightning-kd cache`` wrote.

    No teacher runs. Its outputs are given as logits: those that were stored, or the logarithm of the distribution that
    the stored probabilities stand for, whose softmax it is. Train on `dataset`, which repeats the augmentation.

    Args:
        path: Folder or fsspec URL of the cache.
        rest: What classes get that were not among the K stored, see `densify`.
        calibration: What is learnt from crops on which the teacher is not sure; ``None`` believes it always.
        teacher: The network that the cache should be of, to be compared; it is not kept.
        accept: Sections of the contract that may differ: ``"teacher"``, ``"transform"``, ``"versions"``.
        copies: Folder for local copies of the shards of a cache that is not local.
        records: Where the records are in a batch: an index, key or function of it; ``None`` looks where
            `CachedDataset` puts them.

    Raises:
        CacheError: If there is no cache, or it was written from something else.
        StorageError: If it cannot be read.
        ValueError: If ``rest`` or ``accept`` is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        rest: Rest = "uniform",
        calibration: RegionCalibration | None = None,
        teacher: nn.Module | Teacher | None = None,
        accept: Collection[Section] = (),
        copies: Path | str | None = None,
        records: RecordPlace | None = None,
    ) -> None:
        check_choice("rest", rest, RESTS)
        storage = Storage(path, copies=None if copies is None else Path(copies))
        self.reader = ShardReader(storage)
        present: dict[str, Any] = {"versions": versions()}
        if teacher is not None:
            present["teacher"] = teacher_section(teacher)
        check_contract(storage, self.contract, present, accept=accept)
        if calibration is not None and not self.contract.record.class_count:
            raise SetupError("`calibration` needs a cache of class scores, and this one holds features only.")
        self.rest: Rest = rest
        self.calibration = calibration
        self.accept = tuple(accept)
        self.records_at = records
        self.serves: tuple[Knowledge, ...] = _served(self.contract.record)
        self.module = skeleton(self.contract.hints)
        self._taps: tuple[Tap, ...] = ()
        self._epoch = shared_zeros()
        self._has_dataset = False

    @property
    def contract(self) -> Contract:
        """What the cache holds and what it was written from."""
        return self.reader.contract

    def dataset(self, dataset: Any, *, replay: Replay | None = None, views: Views | None = None) -> CachedDataset:
        """The training data with the teacher's records.

        Args:
            dataset: The data set that the cache was written from, with the same transforms.
            replay: What the cache was written with; ``None`` for `NoReplay`.
            views: Which views are taken; ``None`` takes one after the other, epoch by epoch.

        Returns:
            The data set to train on.

        Raises:
            CacheError: If ``dataset`` has another length or other transforms, or gives other samples than the teacher
                saw, or the cache is damaged or unfinished.
        """
        replay, views = replay or NoReplay(), views or Views()
        if views.self_mix is not None and self.contract.record.features:
            raise SetupError("`self_mix` mixes class distributions, and features cannot be mixed: cache outputs only.")
        present = {"transform": transform_of(dataset), "replay": describe(replay), "samples": len(dataset)}
        check_contract(self.reader.storage, self.contract, present, accept=self.accept)
        probes = self.contract.probes
        check_probes(
            dataset, replay, probes, [self.reader.records(probe["view"], [probe["sample"]]) for probe in probes]
        )
        self._has_dataset = True
        return CachedDataset(dataset, replay, self.reader, epoch=self._epoch, views=views, calibration=self.calibration)

    @override
    def tap(self, taps: Iterable[Tap]) -> None:
        wanted, stored = tuple(dict.fromkeys(taps)), self.contract.record.features
        missing = [
            tap for tap in wanted if tap.path not in stored or (tap.at, tap.call, tap.select) != ("output", None, None)
        ]
        if missing:
            raise SetupError(
                f"`{missing[0].path}` is no feature of the cache {self.reader.storage.url}, which holds "
                f"{', '.join(map(repr, stored)) or 'no features'}: cache it (features=[...]), or distil what is there."
            )
        self._taps = wanted

    @override
    def untap(self) -> None:
        self._taps = ()

    @override
    def observe(
        self,
        inputs: Inputs,
        *,
        step: Step | None = None,
        taps: Collection[Tap] | None = None,
        stop: bool = False,
        copy_overwritten: bool = False,
    ) -> Observation:
        device = next((tensor.device for tensor in inputs.tensors()), torch.device("cpu"))
        packed = self._first(inputs) if step is None else self._in_batch(inputs, step)
        rows, shares = unpack(packed.to(device))
        read = [tap for tap in self._taps if taps is None or tap in taps]
        features = {tap: self._feature(rows, tap) for tap in read}
        output = None if stop or "output" not in self.serves else self._logits(rows, shares, step)
        return Observation(inputs, output, features)

    @override
    def on_fit_start(self, student: nn.Module) -> None:
        if self.contract.views > 1 and not self._has_dataset:
            raise SetupError(
                f"`teacher` is a cache of {self.contract.views} views, and the training data must take the same one: "
                "make them by its dataset() method, DataLoader(cache.dataset(data), ...)."
            )

    @override
    def on_epoch_end(self, student: nn.Module, progress: Progress) -> None:
        self._epoch.fill_(progress.epoch)

    @override
    def training_state(self) -> Mapping[str, Any]:
        return {"epoch": int(self._epoch)}

    @override
    def load_training_state(self, state: Mapping[str, Any]) -> None:
        if state:  # a checkpoint of training with a network has none
            self._epoch.fill_(state["epoch"])

    def _first(self, inputs: Inputs) -> Tensor:
        """The first records for as many samples as there are: adapters are built from their shapes."""
        count = len(next(iter(inputs.tensors()), (None,)))
        rows = self.reader.rows(0, [index % self.contract.samples for index in range(count)])
        return pack(rows[:, None], np.ones((count, 1)))

    def _in_batch(self, inputs: Inputs, step: Step) -> Tensor:
        batch, place = step.batch, self.records_at
        try:
            if callable(place):
                packed = place(batch)
            elif place is None:
                packed = batch[RECORD_KEY] if isinstance(batch, Mapping) else batch[-2]
            else:
                packed = batch[place]
        except (IndexError, KeyError, TypeError):
            packed = None
        width = self.contract.record.size_bytes + SHARE_BYTES
        if not isinstance(packed, Tensor) or packed.dtype != torch.uint8 or packed.shape[-1:] != (width,):
            raise SetupError(
                "the batch holds no records of this cache: train on DataLoader(cache.dataset(data), ...), and keep "
                "what it adds to the batch, or pass records=, an index or key of the batch or a function of it."
            )
        seen = len(next(iter(inputs.tensors()), packed))
        if seen != len(packed):
            raise SetupError(
                f"the student was called with {seen} samples of a batch of {len(packed)}: a cache can only teach whole "
                "batches, in their order."
            )
        return packed

    def _feature(self, rows: Tensor, tap: Tap) -> Tensor:
        if rows.shape[1] != 1:
            raise CacheError("features of mixed crops are not known: cache outputs only.")
        return self.contract.record.read(rows[:, 0], feature_field(tap.path)).float()

    def _logits(self, rows: Tensor, shares: Tensor, step: Step | None) -> Tensor:
        record = self.contract.record
        if record.top_k is None and rows.shape[1] == 1 and self.calibration is None:
            return record.read(rows[:, 0], "logits").float()
        if record.top_k is None:
            each = record.read(rows, "logits").float().softmax(dim=-1)
        else:
            probabilities, classes = (record.read(rows, name) for name in ("probabilities", "classes"))
            each = densify(probabilities, classes, class_count=record.class_count, rest=self.rest)
        mixed = each[:, 0] if rows.shape[1] == 1 else (shares[..., None] * each).sum(dim=1)
        if self.calibration is not None and step is not None:
            mixed = self.calibration(mixed, step.class_indices)
        return as_logits(mixed)


def _served(record: RecordFormat) -> tuple[Knowledge, ...]:
    output: tuple[Knowledge, ...] = ("output",) if record.class_count else ()
    return (*output, "features") if record.features else output

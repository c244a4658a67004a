"""Asks the teacher once for every sample and view, and writes down what it says."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from lightning_kd._checks import check_positive
from lightning_kd.errors import CacheError, SetupError
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation, Tap, layout_hints, pick_tensor
from lightning_kd.teachers.cache.contract import Contract, Section, agree
from lightning_kd.teachers.cache.fingerprint import describe, transform_of, versions, weights_sha256
from lightning_kd.teachers.cache.probes import compare_probes, draw_probes
from lightning_kd.teachers.cache.record import Precision, RecordFormat, Records, feature_field, fill, most_likely
from lightning_kd.teachers.cache.replay import NoReplay, Replay, Values
from lightning_kd.teachers.cache.shards import finished_shards, write_shard
from lightning_kd.teachers.cache.skeleton import hints_of
from lightning_kd.teachers.cache.storage import Storage
from lightning_kd.teachers.frozen import FrozenTeacher
from lightning_kd.teachers.protocol import Teacher

_INPUT_KEYS = ("pixel_values", "image", "images", "input_values", "input_features")
Place = int | str | Callable[[Any], Any]
Report = Callable[[int, int], None]
Key = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSpec:
    """What is stored, and how the augmentation is replayed.

    Attributes:
        top_k: How many of the largest probabilities are stored; ``None``, or the number of classes, stores the logits
            themselves. TinyViT uses 100 of ImageNet-21k's classes, FKD 5 of ImageNet-1k's.
        output: Whether the output is stored; without it, only features are.
        features: Paths of modules inside the teacher whose outputs are stored.
        precision: ``"float16"``, or ``"float32"`` to reproduce training with the teacher exactly.
        views: How many epochs or crops are stored.
        replay: How the augmentation is replayed.
        shard_records: Records per shard: what a kill costs at most.
        inputs: Where the teacher's input is in a batch: an index, key or function of it; ``None`` takes the first item
            of a sequence, or the usual keys of a mapping.
        teacher_output: Index or key of the logits in the teacher's output; ``None`` takes the usual one.

    Raises:
        ValueError: If a number is below 1, nothing is stored, or several views would be the same.
    """

    top_k: int | None = 10
    output: bool = True
    features: Sequence[str] = ()
    precision: Precision = "float16"
    views: int = 1
    replay: Replay = field(default_factory=NoReplay)
    shard_records: int = 32768
    inputs: Place | None = None
    teacher_output: int | str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        for name in ("views", "shard_records"):
            check_positive(name, getattr(self, name))
        if not self.output and not self.features:
            raise ValueError("`features` must name a layer where `output` is False, got none.")
        if self.views > 1 and isinstance(self.replay, NoReplay):
            raise ValueError(f"`views` must be 1 without augmentation, got {self.views}: pass replay=SeededReplay().")


class CacheWriter:
    """Writes a cache, or what is missing of one.

    Shards are written whole or not at all, each by the process whose turn it is: processes need not know of each
    other. Run the same again after a kill, and finished shards stay.

    Args:
        path: Folder or fsspec URL of the cache.
        teacher: A trained network, or a `Teacher` with one; it runs where it is, in evaluation mode.
        dataset: A data set with a length and with samples by index: what the student will train on.
        spec: What is stored; ``None`` stores the ten largest probabilities.
        accept: Sections of the contract in which a cache that is there may differ, when it is resumed.

    Raises:
        CacheError: If there is a cache of something else.
        SetupError: If the data set is random in a way that is not replayed, or the teacher's output cannot be stored.
        StorageError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> from lightning_kd.teachers import TeacherCache
        >>> data = [(torch.randn(4), index % 3) for index in range(6)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     CacheWriter(folder, nn.Linear(4, 3), data, CacheSpec(top_k=2)).write()
        ...     cache = TeacherCache(folder)
        ...     cache.serves, cache.contract.record.size_bytes, cache.reader.records(0, [5])["classes"].shape
        (('output',), 8, (1, 2))
    """

    def __init__(
        self,
        path: str | Path,
        teacher: nn.Module | Teacher,
        dataset: Any,
        spec: CacheSpec | None = None,
        *,
        accept: Collection[Section] = (),
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__") or len(dataset) == 0:
            raise SetupError(
                f"`dataset` must have a length above 0 and samples by index, got {type(dataset).__name__}: samples "
                "of a stream cannot be found again."
            )
        self.spec = spec or CacheSpec()
        self.dataset = dataset
        self.teacher = teacher if isinstance(teacher, Teacher) else FrozenTeacher(teacher)
        self._section = teacher_section(teacher)
        self.storage = Storage(path)
        self._taps = tuple(map(Tap, self.spec.features))
        self._first, _ = _collate([_Drawn(dataset, self.spec.replay)[0, 0]])
        wanted = self._contract()
        self.contract = agree(self.storage, wanted, accept=accept)
        compare_probes(self.contract.probes, wanted.probes)

    def write(
        self, *, batch_size: int = 64, workers: int = 0, part: tuple[int, int] = (0, 1), report: Report | None = None
    ) -> None:
        """Write the shards that are missing.

        Args:
            batch_size: Samples that the teacher sees at once.
            workers: Processes that load samples, see `DataLoader`.
            part: This process's rank and the number of processes: it writes every so many shards.
            report: Called after each shard with the numbers of shards done and to do.

        Raises:
            StorageError: If a shard cannot be written.
        """
        rank, ranks = part
        if not 0 <= rank < ranks:
            raise ValueError(f"`part` must be a rank below the number of processes, got {part}.")
        missing = self._missing(rank, ranks)
        if not missing:
            return
        loader = DataLoader(
            _Drawn(self.dataset, self.spec.replay),
            batch_sampler=_Batches(self.contract, missing, batch_size),
            num_workers=workers,
            collate_fn=_collate,
        )
        stream = iter(loader)
        with self._listening():
            for done, (view, shard) in enumerate(missing, start=1):
                write_shard(self.storage, view, shard, self._shard(stream, shard))
                if report is not None:
                    report(done, len(missing))

    def _missing(self, rank: int, ranks: int) -> list[tuple[int, int]]:
        shards = self.contract.shards_per_view
        own = [divmod(place, shards) for place in range(rank, self.contract.views * shards, ranks)]
        there = {view: finished_shards(self.storage, self.contract, view) for view in {view for view, _ in own}}
        return [(view, shard) for view, shard in own if shard not in there[view]]

    def _shard(self, stream: Iterator[tuple[Any, list[Values]]], shard: int) -> Records:
        records = np.zeros(self.contract.shard_length(shard), dtype=self.contract.record.dtype)
        done = 0
        while done < len(records):
            batch, values = next(stream)
            part = records[done : done + len(values)]
            for name, *_ in self.contract.record.replay:
                fill(part, name, [value[name] for value in values])
            self._fill(part, self._ask(batch))
            done += len(values)
        return records

    def _fill(self, records: Records, said: Observation) -> None:
        record = self.contract.record
        if record.top_k is not None:
            probabilities, classes = most_likely(self._logits(said), record.top_k)
            fill(records, "probabilities", _finite(probabilities, "probabilities"))
            fill(records, "classes", classes)
        elif record.class_count:
            fill(records, "logits", _finite(self._logits(said).to(_TYPES[record.precision]), "logits"))
        for tap in self._taps:
            feature = said.features[tap].to(_TYPES[record.precision])
            fill(records, feature_field(tap.path), _finite(feature, tap.path))

    def _ask(self, batch: Any) -> Observation:
        parameter = next(self._network.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        inputs = Inputs.of(self._inputs(batch)).to(device)
        return self.teacher.observe(inputs, step=Step(batch=batch), stop=not self.spec.output, copy_overwritten=True)

    @contextmanager
    def _listening(self) -> Iterator[Observation]:
        """Read the taps in this block; the first call, yielded, shows which of them later operations overwrite."""
        self.teacher.tap(self._taps)
        try:
            yield self._ask(self._first)
        finally:
            self.teacher.untap()

    @property
    def _network(self) -> nn.Module:
        module = self.teacher.module
        return nn.Identity() if module is None else module

    def _inputs(self, batch: Any) -> Any:
        place = self.spec.inputs
        if callable(place):
            return place(batch)
        if place is None and isinstance(batch, Mapping):
            place = next((key for key in _INPUT_KEYS if key in batch), None)
        try:
            return batch[0 if place is None else place]
        except (KeyError, IndexError, TypeError) as error:
            raise SetupError(
                f"`inputs` must be where the teacher's input is in a batch, an index, a key or a function of it, got "
                f"{self.spec.inputs!r} of {list(batch) if isinstance(batch, Mapping) else type(batch).__name__}."
            ) from error

    def _logits(self, said: Observation) -> Tensor:
        return pick_tensor(said.output, self.spec.teacher_output, "the teacher's output")

    def _contract(self) -> Contract:
        spec, dataset = self.spec, self.dataset
        probes = draw_probes(dataset, spec.replay)
        with self._listening() as said:
            record = self._record(said)
        return Contract(
            teacher=self._section,
            transform=transform_of(dataset),
            replay=describe(spec.replay),
            record=record,
            samples=len(dataset),
            views=spec.views,
            shard_records=min(spec.shard_records, len(dataset)),
            versions=versions(),
            probes=probes,
            hints={tap.path: hints_of(layout_hints(self._network, tap.path, said.inputs)) for tap in self._taps},
        )

    def _record(self, said: Observation) -> RecordFormat:
        features = {tap.path: tuple(said.features[tap].shape[1:]) for tap in self._taps}
        form = RecordFormat(replay=self.spec.replay.fields, features=features, precision=self.spec.precision)
        if not self.spec.output:
            return form
        shape = tuple(self._logits(said).shape[1:])
        top_k = None if self.spec.top_k == shape[0] else self.spec.top_k
        if top_k is not None and top_k > shape[0]:
            raise SetupError(f"`top_k` must be at most the teacher's {shape[0]} classes, got {top_k}; None stores all.")
        if top_k is not None and len(shape) > 1:
            raise SetupError(f"`top_k` must be None for outputs of shape (N, *{shape}), which have many positions.")
        return replace(form, class_count=shape[0], top_k=top_k, logits_shape=() if top_k else shape)


_TYPES: Mapping[Precision, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


def teacher_section(teacher: nn.Module | Teacher) -> dict[str, Any]:
    """What the contract says of a teacher: its class, the hash of its weights, and how it is run.

    Args:
        teacher: A network or a teacher with one.

    Returns:
        Plain values; a network and a `FrozenTeacher` of it without options have the same.

    Raises:
        SetupError: If there is no network, as behind a cache.
    """
    module = teacher.module if isinstance(teacher, Teacher) else teacher
    if module is None:
        raise SetupError(f"`teacher` must have a network to be cached, and {type(teacher).__name__} has none.")
    ran = teacher if isinstance(teacher, Teacher) else FrozenTeacher(nn.Identity())
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    return {"class": name, "weights_sha256": weights_sha256(module), "kind": _kind(ran)}


def _kind(teacher: Teacher) -> dict[str, Any]:
    found: dict[str, Any] = {"class": type(teacher).__name__}
    for name, value in vars(teacher).items():
        if isinstance(value, Mapping) and all(isinstance(member, Teacher) for member in value.values()):
            found[name] = {key: _kind(member) for key, member in value.items()}
        elif not name.startswith("_") and name != "training" and not isinstance(value, nn.Module):
            found[name] = describe(value)
    return found


class _Drawn(Dataset[Any]):
    """Samples by view and index, with the values that repeat their augmentation."""

    def __init__(self, dataset: Any, replay: Replay) -> None:
        self._dataset = dataset
        self._replay = replay

    def __getitem__(self, key: Key) -> tuple[Any, Values]:
        view, index = key
        return self._replay.draw(self._dataset, index, view)


class _Batches:
    """Batches of shards, none of which spans two: a resumed run asks the teacher in the same ones."""

    def __init__(self, contract: Contract, shards: Sequence[Key], size: int) -> None:
        self._contract = contract
        self._shards = shards
        self._size = size

    def __iter__(self) -> Iterator[list[Key]]:
        for view, shard in self._shards:
            first = shard * self._contract.shard_records
            end = first + self._contract.shard_length(shard)
            for start in range(first, end, self._size):
                yield [(view, index) for index in range(start, min(start + self._size, end))]


def _collate(drawn: Sequence[tuple[Any, Values]]) -> tuple[Any, list[Values]]:
    return default_collate([sample for sample, _ in drawn]), [values for _, values in drawn]


def _finite(values: Tensor, what: str) -> Tensor:
    if not bool(values.isfinite().all()):
        raise CacheError(f"the teacher's {what} are not finite in {values.dtype}: pass precision='float32'.")
    return values

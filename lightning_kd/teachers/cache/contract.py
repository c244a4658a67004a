"""What a cache holds and what it was written from: the content of ``index.json``."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from lightning_kd._checks import check_choice
from lightning_kd.errors import CacheError
from lightning_kd.teachers.cache.fingerprint import first_difference
from lightning_kd.teachers.cache.record import RecordFormat
from lightning_kd.teachers.cache.storage import Storage

INDEX = "index.json"
FORMAT, VERSION = "lightning-kd teacher cache", 1
Section = Literal["teacher", "transform", "versions"]
SECTIONS: tuple[Section, ...] = ("teacher", "transform", "versions")
_CURES: Mapping[str, str] = {
    "teacher": "load the weights that the cache was written with, or write a new cache to another folder",
    "transform": "restore the data set's transforms, or write a new cache to another folder",
    "versions": "install the versions of the cache, or pass accept=['versions'] if neither pixels nor outputs differ",
    "replay": "replay as the cache does, or write a new cache to another folder",
    "record": "ask for the same top_k, precision and features, or write a new cache to another folder",
    "samples": "use the data set that the cache was written from, or write a new cache to another folder",
    "shard_records": "leave shard_records as it was, or write a new cache to another folder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What must be equal between the process that writes a cache, one that resumes it, and one that reads it.

    Attributes:
        teacher: Class, hash of the weights and input transform of the teacher.
        transform: Description of the data set and its transforms, see `transform_of`.
        replay: How the augmentation is replayed, by class and options.
        record: Fields of a record.
        samples: Number of samples of the data set.
        views: Number of epochs or crops that each sample is stored for.
        shard_records: Records per shard; the last shard of a view may have fewer.
        versions: Of the libraries that decide pixels and outputs.
        probes: Values of some transformed samples, which show whether a data set still gives the same.
        hints: What the teacher says of its features by tap path: prefix tokens, channels last.
    """

    teacher: Mapping[str, Any]
    transform: Any
    replay: Mapping[str, Any]
    record: RecordFormat
    samples: int
    views: int
    shard_records: int
    versions: Mapping[str, str]
    probes: tuple[Mapping[str, Any], ...] = ()
    hints: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shards_per_view(self) -> int:
        """Number of shards that hold one view."""
        return -(-self.samples // self.shard_records)

    def shard_length(self, shard: int) -> int:
        """Number of records in a shard of any view."""
        return min(self.shard_records, self.samples - shard * self.shard_records)

    def to_json(self) -> dict[str, Any]:
        """The contract as plain values."""
        return {
            "format": FORMAT,
            "format_version": VERSION,
            "samples": self.samples,
            "views": self.views,
            "shard_records": self.shard_records,
            "record": self.record.to_json(),
            "replay": dict(self.replay),
            "teacher": dict(self.teacher),
            "transform": self.transform,
            "versions": dict(self.versions),
            "hints": dict(self.hints),
            "probes": [dict(probe) for probe in self.probes],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        rest = {key: value for key, value in content.items() if key not in ("format", "format_version")}
        record, probes = RecordFormat.from_json(rest.pop("record")), tuple(rest.pop("probes"))
        return cls(record=record, probes=probes, **rest)


def read_contract(storage: Storage) -> Contract | None:
    """The contract of the cache in ``storage``; ``None`` if there is no cache.

    Raises:
        CacheError: If ``index.json`` cannot be understood.
    """
    content = storage.read(INDEX)
    if content is None:
        return None
    place = storage.place(INDEX)
    try:
        found = json.loads(content)
        if (found["format"], found["format_version"]) != (FORMAT, VERSION):
            raise CacheError(f"{place} is of format {found['format']!r} {found['format_version']}: write it anew.")
        return Contract.from_json(found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, CacheError):
            raise
        raise CacheError(
            f"{place} is damaged ({error!r}): restore it, or write the cache to another folder."
        ) from error


def agree(storage: Storage, wanted: Contract, *, accept: Collection[Section] = ()) -> Contract:
    """Write the contract where there is none; else hold the present one against it.

    A cache may get more views; then the contract with the larger number is written. What killed processes left of
    the contract is deleted.

    Args:
        storage: The cache.
        wanted: What the process that writes would have.
        accept: Sections that may differ.

    Returns:
        The contract that holds.

    Raises:
        CacheError: If the cache was written from something else.
        StorageError: If it cannot be written.
    """
    storage.sweep("", INDEX)
    found = read_contract(storage)
    held = wanted
    if found is not None:
        check_contract(storage, found, wanted.to_json(), accept=accept)
        held = replace(found, views=max(found.views, wanted.views))
    if found != held:
        storage.write(INDEX, json.dumps(held.to_json(), indent=1).encode())
    return held


def check_contract(
    storage: Storage, found: Contract, present: Mapping[str, Any], *, accept: Collection[Section] = ()
) -> None:
    """Raise `CacheError` if what is present differs from the contract, naming the place and the cure.

    Args:
        storage: The cache.
        found: Its contract.
        present: Sections of the present process; those that it has not are not compared.
        accept: Sections that may differ.
    """
    for accepted in accept:
        check_choice("accept", accepted, SECTIONS)
    stored = found.to_json()
    for section, cure in _CURES.items():
        if section in present and section not in accept:
            difference = first_difference(stored[section], json.loads(json.dumps(present[section])), section)
            if difference is not None:
                raise CacheError(f"{storage.place(INDEX)}: {difference}: {cure}.")

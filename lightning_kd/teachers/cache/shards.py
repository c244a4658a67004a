"""Shards: ``.npy`` files of records, named by their number and the checksum of their bytes."""

import hashlib
import io
import os
import re
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_kd.errors import CacheError
from lightning_kd.teachers.cache.contract import INDEX, Contract, read_contract
from lightning_kd.teachers.cache.record import Records
from lightning_kd.teachers.cache.storage import Storage

CHECKSUM_BYTES = 8
MOST_OPEN = 256
_CHUNK_BYTES = 2**20
_NPY_VERSION = (1, 0)
_NAME = re.compile(rf"(\d+)-([0-9a-f]{{{2 * CHECKSUM_BYTES}}})\.npy")
_AGAIN = "run the command that wrote the cache again"
_REWRITE = f"delete it and {_AGAIN}: only this shard is written anew"


def view_folder(view: int) -> str:
    """Folder of the shards of a view."""
    return f"view-{view:05d}"


def shard_prefix(shard: int) -> str:
    """What the name of a shard starts with."""
    return f"{shard:05d}-"


def npy_bytes(records: Records) -> bytes:
    """The records as the content of an ``.npy`` file, which ``numpy.load`` reads, memory-mapped too."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, records, version=_NPY_VERSION, allow_pickle=False)
    return buffer.getvalue()


def write_shard(storage: Storage, view: int, shard: int, records: Records) -> None:
    """Write a shard, and delete what a killed process left of it.

    Raises:
        StorageError: If it cannot be written.
    """
    storage.sweep(view_folder(view), shard_prefix(shard))
    content = npy_bytes(records)
    checksum = hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).hexdigest()
    storage.write(f"{view_folder(view)}/{shard_prefix(shard)}{checksum}.npy", content)


def finished_shards(storage: Storage, contract: Contract, view: int) -> dict[int, str]:
    """Names of the shards of a view that are there with the size that they must have, by number.

    Raises:
        CacheError: If one has another size.
    """
    found: dict[int, str] = {}
    for name, size in sorted(storage.sizes(view_folder(view)).items()):
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) >= contract.shards_per_view:
            continue
        shard, path = int(match[1]), f"{view_folder(view)}/{name}"
        expected = shard_bytes(contract, shard)
        if size != expected:
            raise CacheError(f"{storage.place(path)} has {size} bytes instead of {expected}: {_REWRITE}.")
        if shard in found:
            raise CacheError(f"{storage.place(path)} and {found[shard]} are the same shard: delete both and {_AGAIN}.")
        found[shard] = path
    return found


def shard_bytes(contract: Contract, shard: int) -> int:
    """Size of a shard's file: the records behind the header."""
    return header_bytes(contract, shard) + contract.shard_length(shard) * contract.record.size_bytes


def header_bytes(contract: Contract, shard: int) -> int:
    """Size of the header of a shard's file."""
    shape = (contract.shard_length(shard),)
    description = {"descr": contract.record.dtype.descr, "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, description)
    return len(buffer.getvalue())


class ShardReader:
    """Reads records at random, each shard checked once before its first record is given.

    Files are read at the place of a record instead of being mapped, so that the memory of the process does not grow by
    what it has read. Which shards are checked is known to all workers of a `DataLoader`.

    Args:
        storage: The cache.

    Attributes:
        contract: The contract.

    Raises:
        CacheError: If there is no cache.
    """

    def __init__(self, storage: Storage) -> None:
        contract = read_contract(storage)
        if contract is None:
            raise CacheError(f"{storage.place(INDEX)} is missing: write the cache with `lightning-kd cache` first.")
        self.storage = storage
        self.contract = contract
        self._checked = shared_zeros(contract.views, contract.shards_per_view)
        self._names: dict[int, dict[int, str]] = {}
        self._open: OrderedDict[tuple[int, int], _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        """Leave out open files, which another process opens for itself."""
        return {**vars(self), "_open": OrderedDict()}

    def rows(self, view: int, samples: Sequence[int]) -> Records:
        """Records of one view as bytes.

        Args:
            view: Which epoch or crop.
            samples: Indices in the data set.

        Returns:
            Shape ``(len(samples), size of a record)``, uint8.

        Raises:
            CacheError: If an index is out of range, or a shard is missing or damaged.
            StorageError: If a shard cannot be fetched.
        """
        size, length = self.contract.record.size_bytes, self.contract.shard_records
        content = []
        for sample in samples:
            if not 0 <= sample < self.contract.samples or not 0 <= view < self.contract.views:
                raise CacheError(
                    f"{self.storage.url} holds samples 0 to {self.contract.samples - 1} of views 0 to "
                    f"{self.contract.views - 1}, got sample {sample} of view {view}."
                )
            shard, record = divmod(sample, length)
            content.append(self._shard(view, shard).read(record * size, size))
        return np.frombuffer(b"".join(content), dtype=np.uint8).reshape(len(samples), size)

    def records(self, view: int, samples: Sequence[int]) -> Records:
        """Records of one view, by field.

        Args:
            view: Which epoch or crop.
            samples: Indices in the data set.

        Returns:
            Shape ``(len(samples),)``, of the contract's record type.
        """
        found: Records = self.rows(view, samples).reshape(-1).view(self.contract.record.dtype)
        return found

    def verify(self) -> Iterator[str]:
        """Check every shard, and yield its name.

        Raises:
            CacheError: If one is missing or damaged.
        """
        for view in range(self.contract.views):
            for shard in range(self.contract.shards_per_view):
                self._check(view, shard, self.storage.local_copy(self._name(view, shard)))
                yield self._name(view, shard)

    def _name(self, view: int, shard: int) -> str:
        names = self._names.get(view)
        if names is None or shard not in names:
            names = self._names[view] = finished_shards(self.storage, self.contract, view)
        if shard not in names:
            raise CacheError(
                f"{self.storage.place(view_folder(view))} lacks shard {shard}: the cache is unfinished, run the "
                "command that writes it again."
            )
        return names[shard]

    def _shard(self, view: int, shard: int) -> "_OpenShard":
        opened = self._open.get((view, shard))
        if opened is None:
            path = self.storage.local_copy(self._name(view, shard))
            if not self._checked[view, shard]:
                self._check(view, shard, path)
            if len(self._open) == MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            opened = self._open[view, shard] = _OpenShard(path, header_bytes(self.contract, shard))
        return opened

    def _check(self, view: int, shard: int, path: Path) -> None:
        size, expected = path.stat().st_size, shard_bytes(self.contract, shard)
        if size != expected:
            raise CacheError(f"{path} has {size} bytes instead of {expected}: {_REWRITE}.")
        digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        if f"-{digest.hexdigest()}." not in path.name:
            raise CacheError(f"{path} is damaged: its bytes have the checksum {digest.hexdigest()}; {_REWRITE}.")
        self._checked[view, shard] = 1


def shared_zeros(*sizes: int) -> Tensor:
    """Whole numbers in memory that the workers of a `DataLoader` share with the process that started them."""
    zeros = torch.zeros(sizes, dtype=torch.int64)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros


class _OpenShard:
    """The file of a shard that is being read."""

    def __init__(self, path: Path, header: int) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._header = header
        self.close = weakref.finalize(self, os.close, self._file)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file, size, self._header + offset)

"""Records are read at random, and damage is found before the first one is given."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_kd.errors import CacheError
from lightning_kd.teachers.cache import SeededReplay, shards
from lightning_kd.teachers.cache.shards import ShardReader
from lightning_kd.teachers.cache.storage import Storage


@pytest.fixture
def folder(teacher, augmented, write):
    return write(teacher, augmented(), top_k=2, views=2, replay=SeededReplay(), shard_records=8)


@pytest.fixture
def open_cache():
    return lambda folder: ShardReader(Storage(folder))


def shard(folder, view=0, number=0):
    (path,) = folder.glob(f"view-{view:05d}/{number:05d}-*.npy")
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(view=st.integers(0, 1), samples=st.lists(st.integers(0, 19), max_size=30))
def test_any_records_in_any_order_are_those_that_numpy_reads(view, samples, folder, open_cache):
    whole = np.concatenate([np.load(path) for path in sorted(folder.glob(f"view-{view:05d}/*.npy"))])
    assert open_cache(folder).records(view, samples).tobytes() == whole[samples].tobytes()


def test_few_files_are_open_at_once(folder, open_cache, monkeypatch):
    monkeypatch.setattr(shards, "MOST_OPEN", 2)
    reader = open_cache(folder)
    for _ in range(2):
        for view in range(2):
            assert len(reader.records(view, [0, 8, 16, 3, 12])) == 5
    assert len(reader._open) == 2


@pytest.mark.parametrize("offset", [0, 60, 128, -1])
def test_a_flipped_byte_is_found_wherever_it_is(offset, folder, open_cache):
    path = shard(folder, view=1, number=2)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    reader = open_cache(folder)
    reader.records(1, [0, 8])
    with pytest.raises(CacheError, match=f"{path.name} is damaged.*delete it and run the command that wrote"):
        reader.records(1, [17])
    with pytest.raises(CacheError, match=f"{path.name} is damaged"):
        list(reader.verify())


@pytest.mark.parametrize("change", ["cut", "empty", "longer"])
def test_a_shard_of_another_size_is_found(change, folder, open_cache):
    path = shard(folder)
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-1], "empty": b"", "longer": data + b"x"}[change])
    size = {"cut": len(data) - 1, "empty": 0, "longer": len(data) + 1}[change]
    with pytest.raises(CacheError, match=f"{path.name} has {size} bytes instead of {len(data)}: delete it"):
        open_cache(folder).records(0, [0])


def test_a_damaged_shard_is_repaired_by_the_command_that_wrote_it(
    folder, open_cache, teacher, augmented, write, content
):
    before = content(folder)
    shard(folder, number=1).unlink()
    write(teacher, augmented(), top_k=2, views=2, replay=SeededReplay(), shard_records=8)
    assert content(folder) == before


def test_a_missing_shard_says_that_the_cache_is_unfinished(folder, open_cache):
    shard(folder, number=1).unlink()
    reader = open_cache(folder)
    reader.records(0, [0, 19])
    with pytest.raises(CacheError, match="view-00000 lacks shard 1: the cache is unfinished"):
        reader.records(0, [9])


def test_two_files_of_one_shard_are_an_error(folder, open_cache):
    path = shard(folder)
    path.with_name(f"00000-{'0' * 16}.npy").write_bytes(path.read_bytes())
    with pytest.raises(CacheError, match="are the same shard: delete both"):
        open_cache(folder).records(0, [0])


def test_foreign_files_do_not_matter(folder, open_cache):
    (folder / "view-00000" / "notes.txt").write_text("mine")
    (folder / "view-00000" / f"00009-{'0' * 16}.npy").write_bytes(b"")
    assert len(list(open_cache(folder).verify())) == 6


@pytest.mark.parametrize(("view", "sample"), [(2, 0), (-1, 0), (0, 20), (0, -1)])
def test_records_that_are_not_there_are_an_error(view, sample, folder, open_cache):
    with pytest.raises(CacheError, match=f"samples 0 to 19 of views 0 to 1, got sample {sample} of view {view}"):
        open_cache(folder).records(view, [sample])


def test_a_folder_without_a_cache_is_an_error(tmp_path, open_cache):
    with pytest.raises(CacheError, match=r"index\.json is missing: write the cache with `lightning-kd cache`"):
        open_cache(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": "other", "format_version": 1}', "is of format 'other' 1"),
        ('{"format": "lightning-kd teacher cache", "format_version": 1}', "is damaged"),
    ],
)
def test_an_index_that_cannot_be_read_is_an_error(text, message, folder, open_cache):
    (folder / "index.json").write_text(text)
    with pytest.raises(CacheError, match=rf"index\.json {message}"):
        open_cache(folder)


def test_other_processes_open_files_of_their_own(folder, open_cache):
    reader = open_cache(folder)
    reader.records(0, [0])
    state = reader.__getstate__()
    assert not state["_open"]
    assert pickle.dumps({key: value for key, value in state.items() if key not in ("_checked", "storage")})

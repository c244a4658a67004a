"""Files appear whole or not at all, in a folder and in an object store."""

import os
import subprocess
import sys
import textwrap

import fsspec
import pytest

from lightning_kd.errors import StorageError
from lightning_kd.teachers.cache.storage import Storage


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    if request.param == "folder":
        yield Storage(tmp_path / "cache")
        return
    yield Storage("memory://bucket/cache", copies=tmp_path / "copies")
    fsspec.filesystem("memory").store.clear()


def test_what_is_written_is_read_listed_and_copied(storage):
    assert storage.read("index.json") is None
    assert storage.sizes("view") == {}
    storage.write("view/one.npy", b"first")
    storage.write("view/one.npy", b"second")
    storage.write("index.json", b"{}")
    assert storage.read("view/one.npy") == b"second"
    assert storage.sizes("view") == {"one.npy": 6}
    assert storage.local_copy("view/one.npy").read_bytes() == b"second"
    storage.remove("view/one.npy")
    assert storage.sizes("view") == {}


def test_a_copy_is_fetched_once(tmp_path):
    storage = Storage("memory://other", copies=tmp_path)
    storage.write("a.npy", b"abc")
    storage.local_copy("a.npy")
    storage.remove("a.npy")
    assert storage.local_copy("a.npy").read_bytes() == b"abc"
    with pytest.raises(StorageError, match=r"other/b\.npy is missing: run the command"):
        storage.local_copy("b.npy")


def test_a_far_cache_needs_a_place_for_copies():
    storage = Storage("memory://third")
    storage.write("a.npy", b"abc")
    with pytest.raises(StorageError, match="memory://third is no local folder: pass copies="):
        storage.local_copy("a.npy")


def test_an_unknown_protocol_is_an_error():
    with pytest.raises(StorageError, match="fsspec understands, got nowhere://x"):
        Storage("nowhere://x")


def test_leftovers_of_killed_processes_are_not_listed_and_are_swept(tmp_path):
    storage = Storage(tmp_path)
    storage.write("view/00001-a.npy", b"x")
    for name in (".00001-b.npy.77.partial", ".00002-b.npy.77.partial"):
        (tmp_path / "view" / name).write_bytes(b"half")
    assert storage.sizes("view") == {"00001-a.npy": 1}
    storage.sweep("view", "00001-")
    assert (
        sorted(path.name for path in (tmp_path / "view").iterdir()) == ["00001-a.npy", ".00002-b.npy.77.partial"][::-1]
    )


def test_a_file_that_another_process_sweeps_while_it_is_written_is_written_again(tmp_path, monkeypatch):
    storage, flush, flushed = Storage(tmp_path), os.fsync, []

    def swept(descriptor):
        flush(descriptor)
        flushed.append(descriptor)
        if len(flushed) == 1:
            storage.sweep("", "index.json")

    monkeypatch.setattr(os, "fsync", swept)
    storage.write("index.json", b"{}")
    assert len(flushed) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]
    assert storage.read("index.json") == b"{}"


def test_a_file_that_never_survives_is_an_error(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: storage.sweep("", "index.json"))
    with pytest.raises(StorageError, match=r"index.json cannot be written .*other processes deleted"):
        storage.write("index.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_and_the_cure_and_leaves_nothing(tmp_path):
    # A limit on the size of files stands for a full disk: the kernel refuses the write in the same place.
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from lightning_kd.errors import StorageError
        from lightning_kd.teachers.cache.storage import Storage

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        storage = Storage(sys.argv[1])
        storage.write("view/small.npy", b"x" * 900)
        try:
            storage.write("view/00000-large.npy", b"x" * 5000)
        except StorageError as error:
            print(error)
        """
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{tmp_path}/view/00000-large.npy cannot be written (5000 bytes): [Errno 27] File too large" in run.stdout
    assert "Make room" in run.stdout
    assert "run the same command again" in run.stdout
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["small.npy"]


def test_a_folder_in_the_way_is_an_error(tmp_path):
    (tmp_path / "view").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        Storage(tmp_path).write("view/a.npy", b"x")

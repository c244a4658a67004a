from pathlib import Path

import pytest

from exporters.errors import PathError
from exporters.staging import staged


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(folder, *, then=None):
    with staged(folder, last="m") as stage:
        (stage / "a").write_text("new")
        (stage / "m").write_text("new manifest")
        if then is not None:
            raise then


def test_files_appear_together_at_the_end(tmp_path):
    with staged(tmp_path, last="m") as stage:
        (stage / "a").write_text("new")
        (stage / "m").write_text("manifest")
        assert content(stage) == {"a": "new", "m": "manifest"}
        assert not (tmp_path / "a").exists()
    assert content(tmp_path) == {"a": "new", "m": "manifest"}


def test_files_and_folders_of_the_same_name_are_replaced_and_others_kept(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "inner").write_text("old")
    (tmp_path / "other").write_text("kept")
    with staged(tmp_path, last="m") as stage:
        (stage / "a").write_text("new")
        (stage / "package").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "other", "package"]
    assert (tmp_path / "a").read_text() == "new"
    assert list((tmp_path / "package").iterdir()) == []


@pytest.mark.parametrize("interrupt", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_early_end_leaves_everything_as_it_was(tmp_path, interrupt):
    (tmp_path / "a").write_text("old")
    with pytest.raises(interrupt):
        write(tmp_path, then=interrupt)
    assert content(tmp_path) == {"a": "old"}


def test_a_move_that_fails_puts_everything_back(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    (tmp_path / "m").write_text("old manifest")
    rename = type(tmp_path).rename

    def fail_on_manifest(self, target):
        if self.name == "m" and self.parent.name == "new":
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail_on_manifest)
    with pytest.raises(PathError, match="disk full"):
        write(tmp_path)
    assert content(tmp_path) == {"a": "old", "m": "old manifest"}


def test_a_missing_folder_is_refused_before_the_block(tmp_path):
    with (
        pytest.raises(PathError, match=r"existing folder, got .*nowhere; create it"),
        staged(tmp_path / "nowhere", last="m"),
    ):
        pytest.fail("the block ran")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_block():
    # Not even root can make files here.
    with pytest.raises(PathError, match="can be written to, got /proc"), staged(Path("/proc"), last="m"):
        pytest.fail("the block ran")

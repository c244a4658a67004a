"""Claims about the folder of pseudo-labels: what is written stays, and is read once."""

import json

import pytest

from lightning_kd.errors import SetupError
from lightning_kd.speech.pseudo_labels import PseudoLabel, PseudoLabelStore, read_pseudo_labels


def label(name, text="so"):
    return PseudoLabel(id=name, audio=f"{name}.wav", seconds=1.5, text=text, tokens=(7, 8), scores={"nll": 0.5})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_again(tmp_path):
    store = PseudoLabelStore(str(tmp_path))
    labels = [label("a"), label("b", 'é "quoted"')]
    store.write(labels)
    assert list(store.read()) == labels
    assert read_pseudo_labels(str(tmp_path)) == labels
    assert store.done() == {"a", "b"}


def test_processes_do_not_get_in_each_others_way(tmp_path):
    stores = [PseudoLabelStore(str(tmp_path), rank=rank) for rank in range(2)]
    for index in range(2):
        for rank, store in enumerate(stores):
            store.write([label(f"{rank}-{index}")])
    assert len(names(tmp_path)) == 4
    assert stores[0].done() == {"0-0", "0-1", "1-0", "1-1"}
    stores[0].merge()
    assert names(tmp_path) == ["part-00001-000000.jsonl", "part-00001-000001.jsonl", "shard-00000-000002.jsonl"]
    assert stores[1].done() == {"0-0", "0-1", "1-0", "1-1"}


def test_full_parts_are_merged_on_the_way_and_after_a_restart(tmp_path):
    first = PseudoLabelStore(str(tmp_path), shard_size=3)
    first.write([label("a"), label("b")])
    second = PseudoLabelStore(str(tmp_path), shard_size=3)
    second.write([label("c")])
    assert names(tmp_path) == ["shard-00000-000002.jsonl"]
    second.write([label("d")])
    assert names(tmp_path) == ["part-00000-000003.jsonl", "shard-00000-000002.jsonl"]
    assert [found.id for found in second.read()] == ["d", "a", "b", "c"]


def test_a_write_that_was_cut_off_is_not_there(tmp_path):
    store = PseudoLabelStore(str(tmp_path))
    store.write([label("a")])
    (tmp_path / "part-00000-000001.jsonl.0.partial").write_text('{"id": "b", "au')
    again = PseudoLabelStore(str(tmp_path))
    assert again.done() == {"a"}
    again.write([label("b")])
    assert again.done() == {"a", "b"}


def test_a_merge_that_was_cut_off_gives_everything_once(tmp_path):
    store = PseudoLabelStore(str(tmp_path))
    store.write([label("a")])
    store.write([label("b")])
    parts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    store.merge()
    for name, text in parts.items():  # as if it had been killed before it removed them
        (tmp_path / name).write_text(text)
    again = PseudoLabelStore(str(tmp_path))
    assert [found.id for found in again.read()] == ["a", "b"]
    again.merge()
    assert [found.id for found in again.read()] == ["a", "b"]


def test_works_where_files_are_no_files():
    store = PseudoLabelStore("memory://pseudo-label-test", shard_size=2)
    store.agree({"teacher": "x"})
    for name in "abc":
        store.write([label(name)])
    assert {found.id for found in read_pseudo_labels("memory://pseudo-label-test")} == {"a", "b", "c"}


def test_other_settings_are_refused(tmp_path):
    store = PseudoLabelStore(str(tmp_path))
    store.agree({"teacher": "large", "beams": 1})
    assert names(tmp_path) == []  # nothing is made yet
    store.write([label("a")])
    store.agree({"teacher": "large", "beams": 1})
    with pytest.raises(SetupError, match=r"made with beams=1, got 4"):
        store.agree({"teacher": "large", "beams": 4})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"teacher": "large", "beams": 1}


def test_what_is_no_pseudo_label_is_an_error(tmp_path):
    with pytest.raises(SetupError, match=r"got '\{\"id\": 1\}': 'tokens'"):
        PseudoLabel.from_json('{"id": 1}')
    with pytest.raises(SetupError, match=r"must be a folder with pseudo-labels, got .*, which has none"):
        read_pseudo_labels(str(tmp_path / "nothing"))
    with pytest.raises(SetupError, match=r"`out` must be a folder or a URL that fsspec opens, got 'nosuch://x'"):
        PseudoLabelStore("nosuch://x")

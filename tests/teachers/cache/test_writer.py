"""Caches are written whole, the same way every time, and of nothing that cannot be repeated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms import v2

from lightning_kd import FrozenTeacher
from lightning_kd.errors import CacheError, SetupError
from lightning_kd.teachers.cache import CacheSpec, CacheWriter, CropReplay, SeededReplay, TeacherCache


def load(folder):
    """All records of a cache, read with NumPy alone."""
    return {
        path.parent.name: np.load(path, mmap_mode="r", allow_pickle=False)
        for path in sorted(folder.glob("view-*/00000-*.npy"))
    }


def test_numpy_alone_reads_the_teachers_probabilities(teacher, plain, write):
    folder = write(teacher, plain, top_k=3, precision="float32", shard_records=20)
    records = load(folder)["view-00000"]
    with torch.no_grad():
        expected, classes = teacher.eval()(plain.tensors[0]).softmax(1).topk(3)
    assert records.dtype.names == ("classes", "probabilities")
    assert records["classes"].tolist() == classes.tolist()
    np.testing.assert_allclose(records["probabilities"], expected.numpy(), rtol=1e-5)
    index = json.loads((folder / "index.json").read_text())
    assert index["record"]["size_bytes"] == records.itemsize == 3 * (2 + 4)
    assert index["samples"] == len(records) == 20
    assert isinstance(records, np.memmap)


def test_shards_have_the_declared_length_and_the_last_the_rest(teacher, plain, write):
    folder = write(teacher, plain, top_k=2, shard_records=8)
    lengths = [len(np.load(path)) for path in sorted(folder.glob("view-00000/*.npy"))]
    assert lengths == [8, 8, 4]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_run_writes_the_same_bytes(workers, teacher, augmented, write, content):
    spec = {"top_k": 2, "views": 3, "replay": SeededReplay(5), "shard_records": 8}
    first = content(write(teacher, augmented(), name="first", **spec))
    torch.rand(3)
    assert content(write(teacher, augmented(), name="second", workers=workers, **spec)) == first
    assert len(first) == 1 + 3 * 3


def test_processes_that_share_the_shards_write_what_one_writes(teacher, augmented, write, content):
    spec = {"top_k": 2, "views": 2, "replay": SeededReplay(5), "shard_records": 8}
    whole = content(write(teacher, augmented(), name="whole", **spec))
    for rank in (2, 0, 1):
        shared = write(teacher, augmented(), name="shared", part=(rank, 3), **spec)
    assert content(shared) == whole


def test_a_finished_cache_is_not_asked_for_again(teacher, plain, write):
    folder = write(teacher, plain, top_k=2)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    asked = []
    teacher.register_forward_hook(lambda *_: asked.append(1))
    write(teacher, plain, top_k=2)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == before
    assert len(asked) == 1  # one sample, to see what the teacher returns


def test_what_a_kill_left_of_the_contract_is_swept(teacher, plain, write, content):
    folder = write(teacher, plain, top_k=2)
    whole = content(folder)
    for wanted in (whole, {}):
        for name in whole.keys() - wanted.keys():
            (folder / name).unlink()
        (folder / ".index.json.77.partial").write_bytes(b"half")
        write(teacher, plain, top_k=2)
        assert content(folder) == whole


def test_views_can_be_added(teacher, augmented, write, content):
    spec = {"top_k": 2, "replay": SeededReplay(), "shard_records": 8}
    folder = write(teacher, augmented(), views=1, **spec)
    first = content(folder)
    write(teacher, augmented(), views=3, **spec)
    assert content(folder) == content(write(teacher, augmented(), name="at once", views=3, **spec))
    assert {
        name: data for name, data in content(folder).items() if name.startswith("view-00000")
    }.items() <= first.items()


def test_features_are_what_a_hook_sees_before_an_operation_in_place(teacher, plain, write):
    folder = write(teacher, plain, top_k=None, features=["block.1", "block"], precision="float32")
    records = load(folder)["view-00000"]
    teacher.eval()
    with torch.no_grad():
        normalised = teacher.block[:2](plain.tensors[0])
    assert normalised.min() < 0
    np.testing.assert_allclose(records["feature:block.1"], normalised.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(records["feature:block"], normalised.relu().numpy(), rtol=1e-4, atol=1e-6)
    assert "logits" in records.dtype.names


def test_features_alone_are_stored_without_an_output(teacher, plain, write):
    folder = write(teacher, plain, output=False, features=["block"])
    cache = TeacherCache(folder)
    assert cache.serves == ("features",)
    assert cache.contract.record.dtype.names == ("feature:block",)
    assert cache.contract.record.size_bytes == 2 * 5 * 4 * 4


def test_as_many_probabilities_as_classes_are_stored_as_logits(teacher, plain, write):
    folder = write(teacher, plain, top_k=6, precision="float32")
    records = load(folder)["view-00000"]
    with torch.no_grad():
        expected = torch.cat([teacher.eval()(part) for part in plain.tensors[0].split(8)])
    assert np.array_equal(records["logits"], expected.numpy())


def test_dense_outputs_are_stored_whole(plain, write):
    teacher = nn.Conv2d(3, 4, 1)
    folder = write(teacher, plain, top_k=None, precision="float32")
    assert load(folder)["view-00000"]["logits"].shape == (20, 4, 8, 8)
    with pytest.raises(SetupError, match=r"`top_k` must be None for outputs of shape \(N, \*\(4, 8, 8\)\)"):
        write(teacher, plain, name="sparse", top_k=2)


def test_the_input_is_found_in_mappings_or_where_one_says(teacher, plain, write):
    images, labels = plain.tensors
    usual = [{"labels": label, "pixel_values": image} for image, label in zip(images, labels, strict=True)]
    odd = [{"labels": label, "photo": image} for image, label in zip(images, labels, strict=True)]
    first = load(write(teacher, usual, name="usual", top_k=2))
    second = load(write(teacher, odd, name="odd", top_k=2, inputs="photo"))
    third = load(write(teacher, odd, name="function", top_k=2, inputs=lambda batch: batch["photo"]))
    assert first["view-00000"].tobytes() == second["view-00000"].tobytes() == third["view-00000"].tobytes()
    with pytest.raises(SetupError, match=r"`inputs` must be where .* got None of \['labels', 'photo'\]"):
        write(teacher, odd, name="unknown", top_k=2)


def test_a_frozen_teachers_transform_belongs_to_it(teacher, plain, write):
    def halved(images):
        return images / 2

    folder = write(FrozenTeacher(teacher, input_transform=halved), plain, top_k=2)
    with pytest.raises(CacheError, match=r"index\.json: teacher\.kind\.input_transform was .*test_a_frozen"):
        write(teacher, plain, top_k=2)
    assert load(folder)["view-00000"].shape == (20,)


def test_random_transforms_without_a_seed_are_refused_by_name(teacher, augmented, whole, write):
    with pytest.raises(SetupError, match="`dataset` draws RandomResizedCrop anew each time"):
        write(teacher, augmented(), top_k=2)
    flipped = whole(transform=v2.RandomHorizontalFlip(p=0.0))
    with pytest.raises(SetupError, match="draws RandomHorizontalFlip anew"):
        write(teacher, flipped, top_k=2, replay=CropReplay(size=8))
    with pytest.raises(SetupError, match="draws RandomErasing anew"):
        write(teacher, whole(), top_k=2, replay=CropReplay(size=8, then=v2.RandomErasing()))


def test_randomness_without_a_name_is_seen(teacher, whole, write):
    noisy = whole(transform=lambda image: image + torch.rand(()))
    with pytest.raises(SetupError, match=r"gives another sample 0 each time.*needs a stored seed"):
        write(teacher, noisy, top_k=2)
    write(teacher, noisy, top_k=2, replay=SeededReplay())


def test_randomness_that_a_seed_does_not_reach_is_refused(teacher, whole, write):
    own = np.random.default_rng(0)
    stubborn = whole(transform=lambda image: image + own.random())
    with pytest.raises(SetupError, match=r"under SeededReplay\(seed=0\): it draws from a generator of its own"):
        write(teacher, stubborn, top_k=2, replay=SeededReplay())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("teacher", r"index\.json: teacher\.weights_sha256 was .*: load the weights that the cache was written with"),
        ("transform", r"index\.json: transform\.transform\.transforms\.0\.scale\.0 was 0\.3 and is 0\.5: restore"),
        ("replay", r"index\.json: replay\.seed was 0 and is 1: replay as the cache does"),
        ("samples", r"index\.json: samples was 20 and is 21: use the data set"),
        ("top_k", r"index\.json: record\..* ask for the same top_k"),
        ("shard_records", r"index\.json: shard_records was 8 and is 9: leave shard_records"),
    ],
)
def test_a_cache_of_something_else_is_not_resumed(change, message, teacher, augmented, write):
    spec = {"top_k": 2, "replay": SeededReplay(), "shard_records": 8}
    write(teacher, augmented(), **spec)
    dataset = augmented()
    if change == "teacher":
        teacher.head.bias.data[0] += 1e-3
    elif change == "transform":
        dataset = augmented(scale=(0.5, 1.0))
    elif change == "samples":
        dataset = augmented(21)
    elif change == "replay":
        spec["replay"] = SeededReplay(1)
    else:
        spec[change] += 1
    with pytest.raises(CacheError, match=message):
        write(teacher, dataset, **spec)


def test_other_images_under_the_same_transforms_are_noticed(teacher, augmented, write):
    spec = {"top_k": 2, "replay": SeededReplay()}
    write(teacher, augmented(), **spec)
    other = augmented()
    other.images = other.images.flip(0)
    with pytest.raises(CacheError, match="gives another sample 0 than the teacher saw"):
        write(teacher, other, **spec)


def test_other_versions_are_an_error_unless_accepted(teacher, plain, write, tmp_path):
    folder = write(teacher, plain, top_k=2)
    index = json.loads((folder / "index.json").read_text())
    index["versions"]["pillow"] = "1.0"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(CacheError, match=r"versions\.pillow was .1\.0. and is .*accept=\['versions'\]"):
        TeacherCache(folder)
    assert TeacherCache(folder, accept=["versions"]).contract.versions["pillow"] == "1.0"
    CacheWriter(folder, teacher, plain, CacheSpec(top_k=2), accept=["versions"])
    assert json.loads((folder / "index.json").read_text())["versions"]["pillow"] == "1.0"
    with pytest.raises(ValueError, match="'pillow'"):
        TeacherCache(folder, accept=["pillow"])


def test_values_beyond_half_precision_are_an_error(teacher, plain, write):
    teacher.head.weight.data *= 1e7
    with pytest.raises(CacheError, match=r"logits are not finite in torch\.float16: pass precision='float32'"):
        write(teacher, plain, top_k=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": False}, "`features` must name a layer where `output` is False"),
        ({"views": 0}, "`views` must be a finite number above 0"),
        ({"views": 2}, "`views` must be 1 without augmentation, got 2"),
        ({"top_k": 9}, "at most the teacher's 6 classes, got 9; None stores all"),
    ],
)
def test_wrong_specifications_are_refused(options, message, teacher, plain, write):
    with pytest.raises(ValueError, match=message):
        write(teacher, plain, **options)


def test_wrong_parts_and_streams_are_refused(teacher, plain, write):
    with pytest.raises(ValueError, match=r"`part` must be a rank below the number of processes, got \(2, 2\)"):
        write(teacher, plain, top_k=2, part=(2, 2))
    with pytest.raises(SetupError, match="length above 0 and samples by index, got generator"):
        write(teacher, (x for x in plain))
    with pytest.raises(SetupError, match="length above 0"):
        write(teacher, TensorDataset(torch.zeros(0, 3, 8, 8)))


def test_the_teacher_is_left_as_it_was(teacher, plain, write):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    write(teacher, plain, top_k=2, features=["block"])
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.block._forward_hooks


def test_nothing_is_unpickled():
    sources = Path(__file__).parents[3] / "lightning_kd" / "teachers" / "cache"
    text = "".join(path.read_text() for path in sources.glob("*.py"))
    assert "allow_pickle=True" not in text
    assert "import pickle" not in text
    assert "torch.load" not in text

"""The training data come as the teacher saw them, with what it said."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from lightning_kd.errors import CacheError, SetupError
from lightning_kd.teachers.cache import (
    CropReplay,
    MixedReplay,
    RegionCalibration,
    SeededReplay,
    SelfMix,
    TeacherCache,
    Views,
)
from lightning_kd.teachers.cache.dataset import pack, unpack


def said(teacher, images):
    with torch.no_grad():
        return teacher.eval()(images)


def stored(cache, records):
    """Logits in the records of a batch."""
    rows, _ = unpack(records)
    return cache.contract.record.read(rows[:, 0], "logits")


FULL = {"top_k": None, "precision": "float32"}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("replay", [SeededReplay(), MixedReplay(class_count=6)])
def test_the_student_sees_what_the_teacher_saw(workers, replay, teacher, augmented, write):
    folder = write(teacher, augmented(), views=2, replay=replay, shard_records=8, **FULL)
    cache = TeacherCache(folder)
    data = cache.dataset(augmented(), replay=replay)
    epochs = []
    for epoch in (0, 1, 2):
        data.set_epoch(epoch)
        seen = []
        for images, _, records, index in DataLoader(data, batch_size=4, shuffle=True, num_workers=workers):
            torch.testing.assert_close(said(teacher, images), stored(cache, records), rtol=1e-4, atol=1e-5)
            seen += index.tolist()
        assert sorted(seen) == list(range(20))
        epochs.append(data[3][0])
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


def test_crops_of_one_image_come_together(teacher, whole, write):
    replay = CropReplay(size=4, seed=3)
    folder = write(teacher, whole(), views=6, replay=replay, **FULL)
    cache = TeacherCache(folder)
    data = cache.dataset(whole(), replay=replay, views=Views(choice="random", crops=4))
    images, labels, records, index = next(iter(DataLoader(data, batch_size=3)))
    assert images.shape == (12, 3, 4, 4)
    assert index.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert labels.tolist() == index.tolist()
    torch.testing.assert_close(said(teacher, images), stored(cache, records), rtol=1e-4, atol=1e-5)
    assert len({image.numpy().tobytes() for image in images}) == 12


def test_epochs_go_through_the_views_by_as_many_as_there_are_crops(teacher, whole, write):
    replay = CropReplay(size=4)
    cache = TeacherCache(write(teacher, whole(), views=5, replay=replay, **FULL))
    data = cache.dataset(whole(), replay=replay, views=Views(crops=2))
    orders = []
    for epoch in range(3):
        data.set_epoch(epoch)
        orders.append(data._order()[:2])
    assert orders == [[0, 1], [2, 3], [4, 0]]


def test_self_mixed_crops_have_the_labels_of_both_by_area(teacher, whole, write):
    replay = CropReplay(size=4)
    cache = TeacherCache(write(teacher, whole(), views=3, replay=replay, top_k=6, precision="float32"))
    data = cache.dataset(whole(), replay=replay, views=Views(crops=3, self_mix=SelfMix()))
    images, _, records, _ = next(iter(DataLoader(data, batch_size=2)))
    rows, shares = unpack(records)
    assert rows.shape[:2] == (6, 2)
    assert torch.allclose(shares.sum(1), torch.ones(6))
    crops = cache.dataset(whole(), replay=replay, views=Views(crops=3)).__getitems__([0, 1])
    for place, (image, share) in enumerate(zip(images, shares, strict=True)):
        own = crops[place][0]
        same = (image == own).all(dim=0).float().mean().item()
        assert same == pytest.approx(share[0].item(), abs=1e-6)


def test_crops_that_are_not_accepted_give_way_to_others(teacher, whole, write):
    replay = CropReplay(size=4)
    folder = write(teacher, whole(), views=8, replay=replay, top_k=2)
    plain = TeacherCache(folder)
    confidences = np.stack([plain.reader.records(view, range(20))["probabilities"][:, 0] for view in range(8)])
    floor = float(np.median(confidences))
    cache = TeacherCache(folder, calibration=RegionCalibration(drop=floor, low=floor))
    data = cache.dataset(whole(), replay=replay, views=Views(crops=2))
    for index in range(20):
        rows, _ = unpack(torch.stack([item[2] for item in data.__getitems__([index])]))
        found = cache.contract.record.read(rows[:, 0], "probabilities")[:, 0]
        accepted = confidences[:, index][confidences[:, index] >= floor]
        best = sorted(confidences[:, index])[-2:]
        expected = accepted[:2] if len(accepted) >= 2 else [*accepted, *best[::-1][len(accepted) :]]
        assert found.tolist() == pytest.approx([float(value) for value in expected])


def test_mappings_get_keys_and_subsets_work(teacher, plain, write):
    data = [{"image": image, "label": label} for image, label in zip(*plain.tensors, strict=True)]
    cache = TeacherCache(write(teacher, data, **FULL))
    batch = next(iter(DataLoader(Subset(cache.dataset(data), [7, 2]), batch_size=2)))
    assert list(batch) == ["image", "label", "teacher_record", "index"]
    assert batch["index"].tolist() == [7, 2]
    assert cache.dataset(data)[-1]["index"] == 19


def test_shares_and_records_come_back_from_bytes():
    rows = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    found, shares = unpack(pack(rows, np.array([[0.25, 0.75]])))
    assert found.tolist() == rows.tolist()
    assert shares.tolist() == [[0.25, 0.75]]


def test_a_data_set_that_changed_is_refused(teacher, augmented, write):
    cache = TeacherCache(write(teacher, augmented(), replay=SeededReplay(), top_k=2))
    with pytest.raises(CacheError, match="samples was 20 and is 21"):
        cache.dataset(augmented(21), replay=SeededReplay())
    with pytest.raises(CacheError, match=r"scale\.0 was 0\.3 and is 0\.4: restore the data set's transforms"):
        cache.dataset(augmented(scale=(0.4, 1.0)), replay=SeededReplay())
    with pytest.raises(CacheError, match=r"replay\.class was .*SeededReplay. and is .*NoReplay"):
        cache.dataset(augmented())
    other = augmented()
    other.images = other.images.flip(0)
    with pytest.raises(CacheError, match="gives another sample 0 than the teacher saw"):
        cache.dataset(other, replay=SeededReplay())


def test_accepted_transforms_must_still_give_the_same(teacher, whole, write):
    folder = write(teacher, whole(transform=lambda image: image * 1.0), top_k=2)
    with pytest.raises(CacheError, match="transform"):
        TeacherCache(folder).dataset(whole())
    cache = TeacherCache(folder, accept=["transform"])
    assert len(cache.dataset(whole())) == 20
    with pytest.raises(CacheError, match="another sample"):
        cache.dataset(whole(transform=lambda image: image.flip(-1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": "first"}, "'first'"),
        ({"crops": 0}, "`crops` must be at least 1, got 0"),
        ({"self_mix": SelfMix()}, "`crops` must be at least 2, got 1"),
    ],
)
def test_wrong_views_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Views(**options)


def test_more_crops_than_views_and_mixed_features_are_refused(teacher, whole, write):
    replay = CropReplay(size=8)
    cache = TeacherCache(write(teacher, whole(), replay=replay, top_k=2, views=2, features=["block"]))
    with pytest.raises(SetupError, match="must not exceed the 2 views of the cache, got 3"):
        cache.dataset(whole(), replay=replay, views=Views(crops=3))
    with pytest.raises(SetupError, match="features cannot be mixed"):
        cache.dataset(whole(), replay=replay, views=Views(crops=2, self_mix=SelfMix()))


def test_samples_must_be_tuples_or_mappings(teacher, plain, write):
    images = list(plain.tensors[0])
    cache = TeacherCache(write(teacher, images, top_k=2, inputs=lambda batch: batch))
    with pytest.raises(SetupError, match="samples that are tuples or mappings, got Tensor"):
        cache.dataset(images)[0]

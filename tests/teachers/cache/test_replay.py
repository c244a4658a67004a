"""The student gets the pixels that the teacher saw."""

import random

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import v2

from lightning_kd.errors import SetupError
from lightning_kd.teachers.cache.record import RecordFormat
from lightning_kd.teachers.cache.replay import CropReplay, NoReplay, SeededReplay, seeded


def records_of(replay, values):
    """One record that holds these values."""
    records = np.zeros(1, RecordFormat(replay=replay.fields).dtype)
    for name, value in values.items():
        records[name] = value
    return records


class Everything:
    """Draws from every generator that transforms use."""

    def __getitem__(self, index):
        drawn = random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002, S311
        return torch.tensor([*drawn, float(index)], dtype=torch.float64)


def start_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def test_a_seed_repeats_what_any_generator_gave_and_leaves_them_as_they_were():
    start_all(5)
    expected = Everything()[0]
    start_all(5)
    replay = SeededReplay(seed=1)
    sample, values = replay.draw(Everything(), 4, view=2)
    (again,) = replay.repeat(Everything(), 4, records_of(replay, values))
    assert torch.equal(sample, again)
    assert 0 <= values["seed"] < 2**31
    assert torch.equal(Everything()[0], expected)


def test_generators_are_restored_when_a_sample_fails():
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    with pytest.raises(RuntimeError, match="negative dimension -1"), seeded(3):
        torch.rand(-1)
    assert torch.rand(()) == expected


def test_samples_views_and_seeds_differ():
    seeds = {
        SeededReplay(seed=seed).draw(Everything(), index, view)[1]["seed"]
        for seed in range(2)
        for view in range(3)
        for index in range(5)
    }
    assert len(seeds) == 30


def test_transforms_of_torchvision_and_timm_repeat_bit_for_bit(augmented):
    pipeline = timm.data.create_transform(
        (3, 16, 16), is_training=True, auto_augment="rand-m9-mstd0.5", re_prob=0.5, color_jitter=0.4
    )
    pixels = np.random.default_rng(0).integers(256, size=(24, 24, 3), dtype=np.uint8)

    class Timm:
        def __getitem__(self, index):
            return pipeline(Image.fromarray(pixels)), index

    replay = SeededReplay()
    for dataset in (augmented(), Timm()):
        seen = set()
        for view in range(6):
            sample, values = replay.draw(dataset, 3, view)
            for _ in range(2):
                torch.rand(1)
                (again,) = replay.repeat(dataset, 3, records_of(replay, values))
                assert torch.equal(again[0], sample[0])
            seen.add(sample[0].numpy().tobytes())
        assert len(seen) == 6


def test_a_stored_crop_repeats_bit_for_bit_from_pil_and_from_tensors():
    pixels = torch.randint(256, (3, 30, 20), dtype=torch.uint8)
    replay = CropReplay(size=(8, 6), then=v2.ToDtype(torch.float32, scale=True), seed=4)
    for image in (pixels, v2.functional.to_pil_image(pixels)):
        mirrored = set()
        for view in range(20):
            (first, label), values = replay.draw([(image, 7)], 0, view)
            ((again, same),) = replay.repeat([(image, 7)], 0, records_of(replay, values))
            assert (label, same) == (7, 7)
            assert np.array_equal(np.asarray(first), np.asarray(again))
            mirrored.add(values["flip"])
            top, left, height, width = values["crop"]
            assert 0 <= top <= 30 - height
            assert 0 <= left <= 20 - width
            assert height * width >= 0.07 * 600
            assert 0.7 < width / height < 1.4
        assert mirrored == {0, 1}


def test_the_crop_is_the_region_that_the_record_names():
    image = torch.arange(64.0).reshape(1, 8, 8)
    replay = CropReplay(size=(2, 3), interpolation="nearest")
    record = records_of(replay, {"crop": [5, 1, 2, 3], "flip": 1})
    ((crop,),) = replay.repeat([(image,)], 0, record)
    # Rows 5 and 6, columns 1 to 3, mirrored.
    assert crop.tolist() == [[[43.0, 42.0, 41.0], [51.0, 50.0, 49.0]]]


def test_several_crops_cost_one_reading():
    class Counting:
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return torch.rand(1, 8, 8), 0

    replay, data = CropReplay(size=4), Counting()
    records = np.concatenate([records_of(replay, {"crop": [0, 0, 4, 4 + step]}) for step in range(3)])
    assert len(replay.repeat(data, 0, records)) == 3
    assert data.read == 1


@pytest.mark.parametrize(("height", "width"), [(2, 60), (60, 2)])
def test_images_that_no_crop_fits_are_cropped_in_the_middle(height, width):
    _, values = CropReplay(size=4, scale=(0.9, 1.0)).draw([(torch.rand(1, height, width), 0)], 0, 0)
    top, left, tall, wide = values["crop"]
    assert (tall, wide) in ((2, 3), (3, 2))
    assert (2 * top + tall, 2 * left + wide) in ((height, width), (height - 1, width), (height, width - 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "`flip` must be a number from 0 to 1"),
        ({"scale": (0.0, 1.0)}, r"`scale` must be a range of numbers above 0, got \(0.0, 1.0\)"),
        ({"ratio": (2.0, 1.0)}, "`ratio`"),
        ({"interpolation": "lanczos"}, "'lanczos'"),
    ],
)
def test_wrong_crops_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CropReplay(size=8, **options)


def test_the_place_of_the_image_must_be_right():
    with pytest.raises(SetupError, match="`image` must be where a sample has its image, got 'pixels' of tuple"):
        CropReplay(size=8, image="pixels").draw([(torch.rand(1, 8, 8), 0)], 0, 0)


def test_without_augmentation_there_is_nothing_to_store():
    assert NoReplay().fields == ()
    assert NoReplay().repeat(["a", "b"], 1, np.zeros(2)) == ["b", "b"]

"""`cache`: what is written, resumed and refused."""

import json

import numpy as np
import pytest
from PIL import Image

from lightning_kd.teachers.cache import CropReplay, TeacherCache
from lightning_kd.teachers.cache.folders import image_folder

DATA = """

class Noise:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.rand(1, 4, 4) + index, index % 3


def noise(count: int = 6):
    return Noise(count)
"""


@pytest.fixture
def dataset(project, tmp_path):
    """A random data set beside the user's networks."""
    with (tmp_path / f"{project}.py").open("a") as file:
        file.write(DATA)
    return f"{project}:noise"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of colour images."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(3):
            pixels = generator.integers(256, size=(20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    return "photos"


NETWORK = "timm:test_resnet,num_classes=5"
SHAPE = ("--input-shape", 1, 3, 16, 16)


def test_writes_soft_labels_of_a_data_set_under_stored_seeds(run, project, dataset):
    arguments = (f"{project}:network", "--dataset", f"{dataset},count=10", "--output", "cache", "--json")
    options = ("--top-k", 2, "--views", 3, "--replay", "seed", "--shard-records", 4, "--verify")
    status, out, err = run("cache", *arguments, *options)
    assert status == 0, err
    document = json.loads(out)
    assert document["record_bytes"] == 4 + 2 * 4
    assert document["bytes"] == 12 * 10 * 3
    assert (document["shards_written"], document["shards_verified"]) == (9, 9)
    assert TeacherCache("cache").contract.record.dtype.names == ("seed", "classes", "probabilities")

    status, out, err = run("cache", *arguments, *options)
    assert status == 1
    assert "weights_sha256" in err  # the weights are random, and no others than those of the cache


def test_writes_crops_of_a_folder_that_the_student_can_repeat(run, folder):
    arguments = (NETWORK, "--data", folder, *SHAPE, "--output", "cache")
    status, out, err = run("cache", *arguments, "--replay", "crop", "--views", 2, "--top-k", 5, "--batch-size", 4)
    assert status == 0, err
    assert "Teacher outputs in cache" in out
    assert "not asked for" in out
    data, replay = image_folder(folder, (16, 16), crops=True)
    assert isinstance(replay, CropReplay)
    cache = TeacherCache("cache", accept=["transform"])
    assert cache.contract.record.dtype.names == ("crop", "flip", "logits")
    assert cache.contract.samples == 6
    assert data.classes == ["cat", "dog"]


def test_writes_features_of_the_centre_of_images(run, folder):
    arguments = (NETWORK, "--data", folder, *SHAPE, "--output", "cache", "--json")
    status, out, err = run("cache", *arguments, "--features", "layer1", "--features-only", "--precision", "float32")
    assert status == 0, err
    assert json.loads(out)["fields"][0][:2] == ["feature:layer1", "<f4"]
    assert TeacherCache("cache").serves == ("features",)


def test_ranks_share_the_shards(run, folder, monkeypatch):
    arguments = (NETWORK, "--data", folder, *SHAPE, "--output", "cache", "--shard-records", 2, "--top-k", 3, "--json")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, out, err = run("cache", *arguments)
    assert status == 0, err
    assert json.loads(out)["shards_written"] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "one of --data and --dataset must be given"),
        (
            ["--data", "nowhere", *SHAPE],
            1,
            "`data` must be a folder with one subfolder of images per class, got nowhere",
        ),
        (["--dataset", "no_such_module:data"], 1, "No module named 'no_such_module'"),
        (["--dataset", "builtins:list", "--replay", "crop"], 1, "`--replay crop` takes crops of --data"),
        (["--data", "x", "--replay", "seed"], 1, "`--replay seed` repeats a --dataset's own random transforms"),
        (["--dataset", "builtins:list"], 1, "`dataset` must have a length above 0"),
        (
            ["--dataset", "builtins:list", "--top-k", "none"],
            2,
            "argument --top-k: must be a whole number above 0 or 'all'",
        ),
        (["--dataset", "builtins:list,x=1"], 1, "do not fit the function"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, arguments, status, message):
    found, out, err = run("cache", NETWORK, "--output", "cache", *arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1


def test_random_data_without_a_seed_are_refused(run, project, dataset):
    status, _, err = run("cache", f"{project}:network", "--dataset", dataset, "--output", "cache")
    assert status == 1
    assert "random augmentation needs a stored seed" in err

"""What a cache belongs to is told apart, and said the same way in every process."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset
from torchvision.transforms import InterpolationMode, v2

from lightning_kd.teachers.cache.fingerprint import (
    describe,
    first_difference,
    sha256_of,
    transform_of,
    versions,
    weights_sha256,
)


def test_weights_buffers_types_and_names_all_count():
    def net():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    same = weights_sha256(net())
    assert same == weights_sha256(net())
    changed = [net() for _ in range(3)]
    changed[0][0].weight.data[0, 0] += 1e-6
    changed[1][1].running_var[1] = 2.0
    changed[2].double()
    renamed = nn.Sequential()
    renamed.add_module("a", net()[0])
    renamed.add_module("1", net()[1])
    assert len({same, *map(weights_sha256, changed), weights_sha256(renamed)}) == 5


def test_half_precision_weights_have_a_hash():
    assert weights_sha256(nn.Linear(2, 2).bfloat16()) != weights_sha256(nn.Linear(2, 2).half())


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (v2.RandomResizedCrop(8), v2.RandomResizedCrop(8, scale=(0.2, 1.0)), "scale.0 was 0.08 and is 0.2"),
        (
            v2.Resize(8),
            v2.Resize(8, interpolation=InterpolationMode.BICUBIC),
            'interpolation was "bilinear" and is',
        ),
        (v2.Compose([v2.CenterCrop(8)]), v2.Compose([v2.CenterCrop(9)]), "transforms.0.size.0 was 8 and is 9"),
        (v2.Normalize([0.5], [0.5]), v2.Normalize([0.5], [0.25]), "std.0 was 0.5 and is 0.25"),
        (v2.Lambda(lambda x: x + 1), v2.Lambda(lambda x: x + 2), "code was"),
        (functools.partial(torch.roll, shifts=1), functools.partial(torch.roll, shifts=2), "shifts was 1 and is 2"),
        (np.zeros(3), np.ones(3), "array was"),
        ({"a": {1, 2}}, {"a": {1, 3}}, "a.1 was 2 and is 3"),
    ],
)
def test_transforms_that_do_something_else_differ_and_the_place_is_named(one, other, difference):
    assert describe(one) == describe(one)
    assert difference in first_difference(describe(one), describe(other))
    assert sha256_of(describe(one)) != sha256_of(describe(other))


def test_what_a_function_holds_counts():
    def shift(by):
        return lambda x: x + by

    assert describe(shift(1)) == describe(shift(1))
    assert describe(shift(1)) != describe(shift(2))


def test_an_object_that_holds_itself_ends():
    class Own:
        def __init__(self):
            self.own = self

    assert describe(Own())["own"] == "above"


def test_the_wrapped_data_set_is_described_too(augmented):
    description = transform_of(Subset(augmented(), [0, 1]))
    assert description["class"].endswith("Subset")
    assert "RandomResizedCrop" in str(description["dataset"])


def test_another_process_says_the_same():
    script = (
        "import torch, functools\n"
        "from torchvision.transforms import v2\n"
        "from lightning_kd.teachers.cache.fingerprint import describe, sha256_of\n"
        "t = v2.Compose([v2.RandomResizedCrop(8), v2.RandomChoice([v2.GaussianBlur(3), v2.AutoAugment()])])\n"
        "print(sha256_of(describe([t, functools.partial(torch.roll, shifts=1), {3, 'a', 1}])))"
    )
    runs = [
        subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len(runs[0].stdout.strip()) == 64
    assert runs[0].stdout == runs[1].stdout


def test_versions_are_those_that_decide_a_pixel():
    assert versions()["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "pillow", "torchvision", "numpy", "timm"} < versions().keys()


def test_equal_descriptions_have_no_difference():
    assert first_difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) is None
    assert first_difference({"a": 1}, {}) == "a was 1 and is null"
    assert first_difference([1], [1, 2], "x") == "x was [1] and is [1, 2]"

"""Against PyTorch's pooling, and by hand where that has no such padding."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

IMAGE = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
SIGNAL = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]], np.float32)


def case(name, expected, x=IMAGE, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": np.asarray(x)}, (np.asarray(expected),)


PADDED = {"kernel_sizes": [3, 3], "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]}

CASES = {
    "max_pool": case("max_pool", F.max_pool2d(IMAGE, 3, 2, 1), **PADDED),
    "max_pool__ceil": case(
        "max_pool",
        F.max_pool2d(IMAGE, 3, 2, 0, ceil_mode=True),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="valid",
        ceil_mode=True,
    ),
    "avg_pool": case("avg_pool", F.avg_pool2d(IMAGE, 3, 2, 1), **PADDED),
    "avg_pool__excluded": case(
        "avg_pool",
        F.avg_pool2d(IMAGE, 3, 2, 1, count_include_pad=False),
        exclude_padding_from_average=True,
        **PADDED,
    ),
    # What only the rounding up adds counts in no average.
    "avg_pool__ceil": case("avg_pool", F.avg_pool2d(IMAGE, 3, 2, 1, ceil_mode=True), ceil_mode=True, **PADDED),
    # Windows of 2 at stride 2 need one element after the fifth, which counts as a zero unless it is excluded.
    "avg_pool__same": case(
        "avg_pool",
        [[[1.5, 3.5, 2.5]]],
        SIGNAL,
        kernel_sizes=[2],
        strides=[2],
        pad_type="same",
        exclude_padding_from_average=False,
    ),
    "avg_pool__same_excluded": case(
        "avg_pool",
        [[[1.5, 3.5, 5.0]]],
        SIGNAL,
        kernel_sizes=[2],
        strides=[2],
        pad_type="same",
        exclude_padding_from_average=True,
    ),
    "l2_pool": case(
        "l2_pool", np.sqrt([[[5.0, 13.0, 25.0, 41.0]]]), SIGNAL, kernel_sizes=[2], strides=[1], pad_type="valid"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_pytorch_gives(check, name):
    check(name)

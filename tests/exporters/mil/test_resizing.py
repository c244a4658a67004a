"""Against PyTorch where it has the mode, and against grid points written down from Core ML's definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

IMAGE = torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
# Two elements, 0 and 1: a value of the result is its grid point.
PAIR = np.array([[[[0.0, 1.0], [0.0, 1.0]]]], np.float32)
POINTS = torch.rand(1, 3, 4, 2, generator=torch.Generator().manual_seed(1)) * 2.4 - 1.2


def case(name, expected, x=IMAGE, **options):
    return (lambda mb, x: getattr(mb, name)(x=x, **options)), {"x": np.asarray(x)}, (np.asarray(expected),)


def interpolated(size, **options):
    return F.interpolate(IMAGE, size=size, mode="bilinear", **options)


def row(points):
    return np.broadcast_to(np.array(points, np.float32), (1, 1, 2, len(points)))


def sampled(padding, *, corners, mode="bilinear"):
    expected = F.grid_sample(
        IMAGE,
        POINTS,
        mode=mode,
        padding_mode={"constant": "zeros", "symmetric": "reflection"}.get(padding, padding),
        align_corners=corners,
    )
    return (
        lambda mb, x, points: mb.resample(
            x=x,
            coordinates=points,
            sampling_mode=mode,
            padding_mode=padding,
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=corners,
        ),
        {"x": IMAGE.numpy(), "points": POINTS.numpy()},
        (expected.numpy(),),
    )


def in_other_units(mode, points):
    _, inputs, expected = sampled("border", corners=True)
    return (
        lambda mb, x, points: mb.resample(
            x=x,
            coordinates=points,
            sampling_mode="bilinear",
            padding_mode="border",
            padding_value=0.0,
            coordinates_mode=mode,
            align_corners=True,
        ),
        {**inputs, "points": points.numpy()},
        expected,
    )


CASES = {
    "resize_bilinear": case(
        "resize_bilinear",
        interpolated((8, 9)),
        target_size_height=8,
        target_size_width=9,
        sampling_mode="UNALIGN_CORNERS",
    ),
    "resize_bilinear__aligned": case(
        "resize_bilinear",
        interpolated((8, 9), align_corners=True),
        target_size_height=8,
        target_size_width=9,
        sampling_mode="STRICT_ALIGN_CORNERS",
    ),
    "resize_bilinear__default": case(
        "resize_bilinear", row([0, 0.4, 0.8, 1, 1]), PAIR, target_size_height=2, target_size_width=5
    ),
    "resize_bilinear__offset": case(
        "resize_bilinear",
        # Both rows are equal, so that their own grid points do not matter.
        row([0.1, 0.3, 0.5, 0.7, 0.9]),
        PAIR,
        target_size_height=2,
        target_size_width=5,
        sampling_mode="OFFSET_CORNERS",
    ),
    "resize_bilinear__one": case(
        "resize_bilinear", [[[[0.5]]]], PAIR, target_size_height=1, target_size_width=1, sampling_mode="ALIGN_CORNERS"
    ),
    "resize_nearest_neighbor": case(
        "resize_nearest_neighbor",
        F.interpolate(IMAGE, size=(8, 9), mode="nearest"),
        target_size_height=8,
        target_size_width=9,
    ),
    "upsample_bilinear": case(
        "upsample_bilinear", interpolated((10, 18)), scale_factor_height=2, scale_factor_width=3, align_corners=False
    ),
    "upsample_bilinear__aligned": case(
        "upsample_bilinear", interpolated((10, 18), align_corners=True), scale_factor_height=2, scale_factor_width=3
    ),
    "upsample_nearest_neighbor": case(
        "upsample_nearest_neighbor",
        F.interpolate(IMAGE, scale_factor=(2, 3), mode="nearest"),
        scale_factor_height=2,
        scale_factor_width=3,
    ),
    "resize": case(
        "resize",
        interpolated((5, 9)),
        shape=[0, 9],
        resized_dims=np.uint32(2),
        interpolation_mode="LINEAR",
        sampling_mode="UNALIGN_CORNERS",
    ),
    "resize__nearest": case(
        "resize",
        F.interpolate(IMAGE, size=(8, 9), mode="nearest-exact"),
        shape=[1, 2, 8, 9],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="UNALIGN_CORNERS",
    ),
    "resample": sampled("constant", corners=False),
    "resample__border": sampled("border", corners=True),
    "resample__reflection": sampled("reflection", corners=True),
    "resample__symmetric": sampled("symmetric", corners=False),
    "resample__nearest": sampled("constant", corners=True, mode="nearest"),
    "resample__unit": in_other_units("normalized_zero_to_one", (POINTS + 1) / 2),
    "resample__elements": in_other_units("unnormalized", (POINTS + 1) / 2 * torch.tensor([5.0, 4.0])),
}


@pytest.mark.parametrize("name", CASES)
def test_gives_what_its_definition_says(check, name):
    check(name)

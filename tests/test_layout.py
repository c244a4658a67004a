"""Layouts: detection, the round trip to channels first, and the common grid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.errors import LayoutError
from lightning_kd.layout import Layout, LayoutHints, common_grid, detect_layout

IMAGE = LayoutHints(image_size=(224, 224))


@pytest.mark.parametrize(
    ("shape", "hints", "expected"),
    [
        ((2, 64, 56, 56), IMAGE, Layout("NCHW")),
        ((2, 56, 56, 96), IMAGE, Layout("NHWC")),
        ((2, 56, 56, 56), IMAGE, Layout("NCHW")),
        ((2, 56, 56, 56), LayoutHints(channels_last=True, image_size=(224, 224)), Layout("NHWC")),
        ((2, 7, 14, 96), LayoutHints(image_size=(112, 224)), Layout("NHWC")),
        ((2, 96, 7, 14), LayoutHints(image_size=(112, 224)), Layout("NCHW")),
        ((2, 64, 1, 1), IMAGE, Layout("NCHW")),
        ((2, 196, 192), IMAGE, Layout("NLD", 0, (14, 14))),
        ((2, 197, 192), LayoutHints(prefix_tokens=1, image_size=(224, 224)), Layout("NLD", 1, (14, 14))),
        ((2, 196, 192), LayoutHints(prefix_tokens=1, image_size=(224, 224)), Layout("NLD", 0, (14, 14))),
        ((2, 201, 192), LayoutHints(prefix_tokens=5, image_size=(224, 224)), Layout("NLD", 5, (14, 14))),
        ((2, 7 * 14 + 1, 192), LayoutHints(prefix_tokens=1, image_size=(112, 224)), Layout("NLD", 1, (7, 14))),
        ((2, 49, 768), LayoutHints(), Layout("NTD")),
        ((2, 512), IMAGE, Layout("ND")),
    ],
)
def test_detects_the_layout(shape, hints, expected):
    assert detect_layout(shape, hints) == expected


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 197, 192), r"197 tokens do not fill a grid over an image of 224x224.*prefix_tokens=1 would fit"),
        ((2, 202, 192), r"202 tokens.*prefix_tokens=6 would fit"),
        ((2, 3, 4, 5, 6), r"2, 3 or 4 axes, got shape \(2, 3, 4, 5, 6\)"),
        ((2,), r"2, 3 or 4 axes, got shape \(2,\)"),
    ],
)
def test_says_what_to_declare_when_it_cannot_tell(shape, message):
    with pytest.raises(LayoutError, match=message):
        detect_layout(shape, IMAGE)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(1, 4))
def test_channels_first_keeps_rows_and_columns_apart(height, width, prefix, channels):
    """A map whose first channel is row * width + column comes back as that map from every layout."""
    grid = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width).repeat(2, channels, 1, 1)
    tokens = torch.cat([torch.full((2, prefix, channels), -1.0), grid.flatten(2).transpose(1, 2)], 1)
    readings = {
        "NCHW": (Layout("NCHW"), grid),
        "NHWC": (Layout("NHWC"), grid.permute(0, 2, 3, 1)),
        "NLD": (Layout("NLD", prefix, (height, width)), tokens),
    }
    for layout, feature in readings.values():
        assert torch.equal(layout.channels_first(feature), grid)


def test_frames_and_pooled_features_keep_their_values():
    frames, pooled = torch.randn(2, 9, 4), torch.randn(2, 4)
    assert torch.equal(Layout("NTD").channels_first(frames), frames.mT)
    assert Layout("ND").channels_first(pooled) is pooled


def test_a_feature_of_another_rank_is_refused():
    with pytest.raises(LayoutError, match=r"'NLD' has 3 axes, got shape \(2, 3, 4, 4\)"):
        Layout("NLD").channels_first(torch.zeros(2, 3, 4, 4))
    with pytest.raises(LayoutError, match=r"10 patch tokens \(after 1 prefix tokens\) do not fill"):
        Layout("NLD", 1).channels_first(torch.zeros(2, 11, 4))


def test_common_grid_is_the_smaller_size_of_each_axis():
    student, teacher = common_grid(torch.zeros(2, 3, 8, 4), torch.zeros(2, 5, 4, 8))
    assert student.shape == (2, 3, 4, 4)
    assert teacher.shape == (2, 5, 4, 4)
    frames, longer = common_grid(torch.zeros(2, 3, 50), torch.zeros(2, 5, 99))
    assert frames.shape == (2, 3, 50)
    assert longer.shape == (2, 5, 50)


def test_common_grid_averages_cells():
    coarse, fine = torch.zeros(1, 1, 2, 2), torch.arange(16.0).reshape(1, 1, 4, 4)
    _, pooled = common_grid(coarse, fine)
    assert torch.equal(pooled, torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))  # means of the four 2x2 blocks
    vector, mean = common_grid(torch.zeros(1, 1), fine)
    assert mean.item() == 7.5  # (0 + 15) / 2
    assert vector.shape == (1, 1)


def test_a_map_and_frames_have_no_common_grid():
    with pytest.raises(LayoutError, match="a map and a sequence of frames have no common grid"):
        common_grid(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 9))

"""Claims about MatchboxNet; its export is in tests/exporters/test_speech.py."""

import pytest
import torch
from torch import nn

from lightning_kd.errors import ShapeError
from lightning_kd.students import MatchboxNet


# The paper has 77 and 93 thousand, for 30 classes. A separable convolution has i (k + o) weights and a norm of 2 o.
@pytest.mark.parametrize(("repeats", "count"), [(1, 77_214), (2, 92_766)])
def test_has_the_published_number_of_parameters(repeats, count):
    def separable(inputs, outputs, kernel):
        return inputs * (kernel + outputs) + 2 * outputs

    blocks = sum(
        separable(inputs, 64, kernel) + (repeats - 1) * separable(64, 64, kernel) + inputs * 64 + 128
        for inputs, kernel in ((128, 13), (64, 15), (64, 17))
    )
    ends = separable(64, 128, 11) + separable(64, 128, 29) + 128 * 128 + 256 + 129 * 30
    assert count == blocks + ends
    network = MatchboxNet(3, repeats, 64, classes=30)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_blocks_add_a_projection_of_their_input_before_the_activation():
    block = MatchboxNet(repeats=2).blocks[0].eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
    frames = torch.randn(2, 128, 31)
    first, _, _, second = block.convolutions
    expected = (second(first(frames).relu()) + block.shortcut(frames)).relu()
    assert torch.equal(block(frames), expected)
    assert expected.shape == (2, 64, 31)


def test_frames_stay_and_any_number_is_taken():
    network = MatchboxNet(1).eval()
    assert network.blocks(network.stem(torch.randn(1, 64, 53))).shape == (1, 64, 53)
    assert network(torch.randn(3, 64, 98)).shape == (3, 12)


def test_other_features_are_refused():
    with pytest.raises(ShapeError, match=r"`features` must have shape \(N, 64, T\), got \(2, 40, 98\)"):
        MatchboxNet()(torch.randn(2, 40, 98))
    with pytest.raises(ValueError, match="`blocks` and `repeats` must be at least 1, got 3 and 0"):
        MatchboxNet(repeats=0)

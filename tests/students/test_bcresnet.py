"""Claims about BC-ResNet; its export is in tests/exporters/test_speech.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd.errors import ShapeError
from lightning_kd.students import BCResNet
from lightning_kd.students.bcresnet import SubSpectralNorm


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("width", "count"), [(1, 9232), (1.5, 17154), (2, 27284), (3, 54168), (6, 187812), (8, 321068)]
)
def test_has_the_published_number_of_parameters(width, count):
    assert parameters(BCResNet(width)) == count


def test_frequencies_are_halved_to_five_and_frames_stay():
    network = BCResNet().eval()
    shapes = []
    for module in (network.stem, *network.blocks, network.embedding):
        module.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    network(torch.randn(2, 40, 101))
    assert shapes == [
        (16, 20, 101),
        *[(8, 20, 101)] * 2,
        *[(12, 10, 101)] * 2,
        *[(16, 5, 101)] * 4,
        *[(20, 5, 101)] * 4,
        (32,),
    ]


def test_dilation_doubles_from_stage_to_stage():
    dilations = [block.temporal[0].dilation for block in BCResNet().blocks]
    assert dilations == [(1, 1)] * 2 + [(1, 2)] * 2 + [(1, 4)] * 4 + [(1, 8)] * 4


def test_bands_are_normalised_apart():
    norm = SubSpectralNorm(2, bands=5)
    features = torch.randn(4, 2, 10, 7) * torch.arange(1.0, 11.0)[:, None] + torch.arange(10.0)[:, None]
    normal = norm(features).reshape(4, 2, 5, 2, 7)
    assert torch.allclose(normal.mean((0, 3, 4)), torch.zeros(2, 5), atol=1e-5)
    expected = torch.cat([F.batch_norm(part, None, None, training=True) for part in features.split(2, dim=2)], dim=2)
    torch.testing.assert_close(norm(features), expected, rtol=1e-4, atol=1e-5)


def test_frames_are_broadcast_to_all_frequencies_and_the_input_is_added():
    block = BCResNet().blocks[1].eval()
    for module in (block.temporal[-2], block.frequency[0]):
        nn.init.normal_(module.weight)
    features = torch.randn(2, 8, 20, 9)
    local = block.frequency(features)
    added = block.temporal(local.mean(2, keepdim=True))
    assert added.shape == (2, 8, 1, 9)
    assert torch.equal(block(features), (local + added + features).relu())


def test_takes_any_number_of_frames_and_of_classes():
    network = BCResNet(1, classes=3).eval()
    assert network(torch.randn(1, 40, 37)).shape == (1, 3)


def test_other_features_are_refused():
    with pytest.raises(ShapeError, match=r"`features` must have shape \(N, 40, T\), got \(2, 80, 101\)"):
        BCResNet()(torch.randn(2, 80, 101))
    with pytest.raises(ValueError, match=r"`width` must be a finite number of at least 0\.25, got 0\.1"):
        BCResNet(0.1)

"""Physical removal of channels, on real networks of several families."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import exporters
from lightning_kd.compression import network_size, prune_channels, remove_zero_channels, replay_pruning
from lightning_kd.compression.channel_groups import ChannelGraph
from lightning_kd.compression.channels import channel_masks
from lightning_kd.compression.masks import WeightMasks
from lightning_kd.errors import SetupError

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def livened(network):
    """With other BatchNorm statistics than those of initialisation."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2.0)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_()
    return network.eval()


@pytest.fixture
def make(net):
    return lambda name, **options: livened(net(name, pixels=32, **options))


class Chain(nn.Module):
    """Two convolutions with BatchNorm, flattened into a classifier: 8 and 4 channels, 4 cells each."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 4, 5)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.second(self.first(x)), 2)
        return self.head(x.flatten(1))


def test_size_is_counted_by_hand():
    # Weights 8*3*9 + 4*8*9 + 5*16, biases 8 + 4 + 5, BatchNorm 2 * (8 + 4); products at each of 32 * 32 pixels.
    size = network_size(Chain(), IMAGES[:1])
    assert size.parameters == 216 + 288 + 80 + 17 + 24
    assert size.macs == (216 + 288) * 1024 + 80


def test_half_of_each_group_goes_with_all_that_depends_on_it():
    smaller, report = prune_channels(Chain(), IMAGES, ratio=0.5)
    shapes = [smaller.first[0].weight.shape, smaller.second[0].weight.shape, smaller.head.weight.shape]
    assert [tuple(shape) for shape in shapes] == [(4, 3, 3, 3), (2, 4, 3, 3), (5, 8)]
    assert {name: len(channels) for name, channels in report.removed.items()} == {"first.0": 4, "second.0": 2}
    assert report.after == network_size(smaller, IMAGES)
    assert report.after.macs < report.before.macs / 2


def test_the_channels_of_least_magnitude_go():
    network = Chain()
    for part in (network.first[0].weight, network.first[1].weight, network.second[0].weight):
        part.data.fill_(1.0)
    network.first[0].weight.data[[1, 6]] *= 0.1
    _, report = prune_channels(network, IMAGES, ratio=0.25)
    assert report.removed["first.0"] == (1, 6)


def test_the_channels_of_least_scale_go():
    network = Chain()
    network.first[1].weight.data.copy_(torch.tensor([3.0, -0.1, 2, 2, 2, 2, 0.2, 9]))
    _, report = prune_channels(network, IMAGES, ratio=0.25, importance="batch_norm")
    assert report.removed["first.0"] == (1, 6)


def test_the_channels_that_the_loss_feels_least_go():
    """The sum over everything a channel's weights do to the loss, to first order, worked out for a linear network."""
    network = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 1, bias=False))
    network[0].weight.data = torch.tensor([[1.0], [5.0], [2.0]])
    network[1].weight.data = torch.tensor([[3.0, 0.1, -1.0]])
    # With x = 1 and the output as the loss, w dL/dw is the product of both weights: 3, 0.5 and -2, twice each.
    graph = ChannelGraph(network, torch.ones(1, 1))
    network(torch.ones(1, 1)).sum().backward()
    assert_close(graph.groups[0].scores("taylor"), torch.tensor([6.0, 1.0, 4.0]), rtol=1e-6, atol=0)
    _, report = prune_channels(
        network, torch.ones(1, 1), ratio=0.4, importance="taylor", loss=lambda net: net(torch.ones(1, 1)).sum()
    )
    assert report.removed == {"0": (1,)}


def test_what_stays_is_rounded_up_to_a_multiple():
    smaller, _ = prune_channels(Chain(), IMAGES, ratio=0.6, round_to=4)
    assert (smaller.first[0].out_channels, smaller.second[0].out_channels) == (4, 4)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_networks_of_every_family_get_smaller_and_keep_outputs_and_names(name, make):
    network = make(name)
    smaller, report = prune_channels(network, IMAGES, ratio=0.5)
    assert smaller(IMAGES).shape == network(IMAGES).shape
    assert list(smaller.state_dict()) == list(network.state_dict())
    assert report.after.parameters < 0.8 * report.before.parameters
    assert report.after.macs < 0.8 * report.before.macs
    assert network_size(network, IMAGES) == report.before
    again = replay_pruning(make(name), IMAGES, {key: list(value) for key, value in report.removed.items()})
    again.load_state_dict(smaller.state_dict(), strict=True)
    assert torch.equal(again(IMAGES), smaller(IMAGES))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
def test_channels_that_nobody_reads_are_removed_without_a_trace(name, make):
    network = make(name)
    WeightMasks(network, channel_masks(network, IMAGES, ratio=0.5, importance="magnitude")).zero_weights()
    smaller, report = remove_zero_channels(network, IMAGES)
    assert report.after.parameters < 0.8 * report.before.parameters
    others = torch.randn(3, 3, 32, 32)
    assert_close(smaller(others), network(others), rtol=1e-4, atol=1e-5)


def test_masks_and_removal_choose_the_same_channels(make):
    network = make("test_resnet")
    pruned, _ = prune_channels(network, IMAGES, ratio=0.5)
    WeightMasks(network, channel_masks(network, IMAGES, ratio=0.5, importance="magnitude")).zero_weights()
    removed, _ = remove_zero_channels(network, IMAGES)
    for name, value in pruned.state_dict().items():
        assert torch.equal(value, removed.state_dict()[name]), name


def test_skipped_layers_keep_their_channels():
    smaller, report = prune_channels(Chain(), IMAGES, ratio=0.5, skip=["first"])
    assert smaller.first[0].out_channels == 8
    assert list(report.removed) == ["second.0"]


def test_transformers_lose_channels_of_their_mlps():
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    network = ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16)).eval()
    smaller, _ = prune_channels(network, {"pixel_values": IMAGES}, ratio=0.5)
    assert [layer.mlp.fc1.out_features for layer in smaller.vit.layers] == [16, 16]
    assert smaller(IMAGES).logits.shape == network(IMAGES).logits.shape


@pytest.mark.slow
def test_the_smaller_network_is_exported(make, tmp_path):
    smaller, _ = prune_channels(make("test_resnet"), IMAGES, ratio=0.5)
    artifact = exporters.export(smaller, IMAGES[:1], to="onnx", path=tmp_path / "smaller.onnx")
    (scores,) = exporters.load(artifact.path, threads=1).run({artifact.inputs[0].name: IMAGES[1:].numpy()}).values()
    assert_close(torch.from_numpy(scores), smaller(IMAGES[1:]).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prune_channels(Chain(), IMAGES, ratio=1.0), "`ratio` must be above 0 and below 1, got 1.0"),
        (lambda: prune_channels(Chain(), IMAGES, ratio=0.1), "no channel would be removed"),
        (lambda: prune_channels(Chain(), IMAGES, ratio=0.5, importance="taylor"), "`loss` must be given if"),
        (lambda: prune_channels(Chain(), IMAGES, ratio=0.5, importance="size"), "`importance` .* got 'size'"),
        (lambda: remove_zero_channels(Chain(), IMAGES), "no channel would be removed"),
        (lambda: replay_pruning(Chain(), IMAGES, {"head": [0]}), r"`removed` names \['head'\]"),
        (lambda: prune_channels(nn.Linear(2, 2), torch.zeros(1, 2), ratio=0.5), "Linear has no channels"),
    ],
)
def test_what_cannot_be_done_is_refused(call, message):
    with pytest.raises((SetupError, ValueError), match=message):
        call()


class ReturnsTheMap(Chain):
    """Its intermediate map, which is read by a layer too, is an output."""

    def forward(self, x):
        return super().forward(x), self.first(x)


def test_a_network_whose_outputs_would_change_their_shapes_is_refused():
    with pytest.raises(SetupError, match=r"shapes of outputs from \[\(2, 5\), \(2, 8, 32, 32\)\] to .*4, 32, 32"):
        prune_channels(ReturnsTheMap(), IMAGES, ratio=0.5)
    smaller, _ = prune_channels(ReturnsTheMap(), IMAGES, ratio=0.5, skip=["first"])
    assert smaller(IMAGES)[1].shape == (2, 8, 32, 32)

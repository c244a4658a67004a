"""Which weights compression works on."""

import pytest
import torch
from torch import nn

from lightning_kd.compression import layer_weights
from lightning_kd.errors import SetupError


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


def test_layers_and_attention_are_found_and_shared_weights_once():
    names = ["encoder.0.weight", "encoder.2.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert list(layer_weights(Tied())) == [*names, "first.weight"]


def test_a_weight_that_attention_reads_itself_is_read_by_its_call():
    network = Tied()
    weight = layer_weights(network)["attention.out_proj.weight"]
    assert weight.caller is network.attention
    assert weight.parameter is network.attention.out_proj.weight


def test_what_is_skipped_is_left_out_with_all_below():
    assert list(layer_weights(Tied(), skip=["encoder", "att*"])) == ["first.weight"]


def test_a_compiled_network_has_the_names_of_the_plain_one():
    network = Tied()
    network.encoder = torch.compile(network.encoder, backend="eager")
    network.first = torch.compile(network.first, backend="eager")
    assert list(layer_weights(network)) == list(layer_weights(Tied()))


def test_a_pattern_that_names_nothing_is_refused():
    with pytest.raises(SetupError, match=r"`skip` must name modules of Tied, got 'encodr'; nearest: 'encoder'"):
        layer_weights(Tied(), skip=["encodr"])


def test_a_network_without_layers_is_refused():
    with pytest.raises(SetupError, match=r"\(ReLU\) has no linear layer or convolution"):
        layer_weights(nn.ReLU())

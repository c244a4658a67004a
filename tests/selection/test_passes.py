"""Claims about one pass of a network over a data set."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_kd import Tap
from lightning_kd.errors import SetupError, ShapeError, TapError
from lightning_kd.selection import difficulty, sample_difficulty, sample_features

X, Y = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3
DATA = TensorDataset(X, Y)


@pytest.fixture
def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3))


@pytest.mark.parametrize("measure", ["margin", "loss"])
def test_difficulties_are_those_of_each_sample_in_order(net, measure):
    values = sample_difficulty(net, DataLoader(DATA, batch_size=4), measure=measure)
    net.eval()
    assert_close(values, difficulty(net(X), Y, measure=measure))
    assert values.shape == (10,)


def test_a_pass_leaves_the_network_as_it_was(net):
    net[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sample_features(net, DataLoader(DATA, batch_size=3), "0")
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_features_are_what_the_classifier_reads(net):
    features = sample_features(net, DataLoader(DATA, batch_size=4), Tap("3", at="input"))
    net.eval()
    assert_close(features, net[:3](X).detach())


def test_batches_may_be_tensors_mappings_or_anything_with_a_function(net):
    plain = sample_difficulty(net, [X[:5], X[5:]])
    mapped = sample_difficulty(net, [{"pixels": X}], inputs=lambda batch: batch["pixels"])
    assert torch.equal(plain, mapped)
    with pytest.raises(SetupError, match="a batch is a dict: pass inputs="):
        sample_difficulty(net, [{"pixels": X}])


def test_a_loader_in_another_order_is_refused(net):
    with pytest.raises(SetupError, match="got a loader with RandomSampler and drop_last=False"):
        sample_difficulty(net, DataLoader(DATA, shuffle=True))
    with pytest.raises(SetupError, match="drop_last=True: make one with shuffle=False"):
        sample_difficulty(net, DataLoader(DATA, batch_size=4, drop_last=True))


def test_what_is_not_there_is_named(net):
    with pytest.raises(SetupError, match="an objective needs `labels`, and none were found in the batch"):
        sample_difficulty(net, [{"pixels": X}], measure="loss", inputs=lambda batch: batch["pixels"])
    with pytest.raises(TapError, match="`7` names no module of the network"):
        sample_features(net, [X], "7")
    maps = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ShapeError, match=r"got shape \(3, 2, 2, 2\) at '0': tap what the classifier reads"):
        sample_features(maps, [torch.zeros(3, 1, 2, 2)], "0")

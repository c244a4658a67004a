"""Masks: which weights 2:4 pruning keeps, and that the others stay zero."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from exporters.quantization.sparsity import is_two_four
from lightning_kd.compression import WeightMasks, layer_importance, pruned_share, two_four_layers, two_four_mask
from lightning_kd.errors import SetupError, ShapeError

ROW = [0.1, -0.9, 0.4, 0.3, -0.2, 0.25, 0.05, -0.6]


def test_the_two_largest_of_every_four_stay():
    weight = torch.tensor([ROW])
    expected = torch.tensor([[0.0, -0.9, 0.4, 0.0, 0.0, 0.25, 0.0, -0.6]])
    assert_close(weight * two_four_mask(weight), expected, rtol=0, atol=0)


def test_of_equal_magnitudes_the_lowest_indices_stay():
    assert two_four_mask(torch.tensor([[1.0, -1.0, 1.0, 1.0]])).tolist() == [[True, True, False, False]]
    assert two_four_mask(torch.tensor([[0.5, 2.0, -0.5, 0.5]])).tolist() == [[True, True, False, False]]


def test_a_convolution_is_pruned_along_its_input_channels():
    weight = torch.tensor(ROW).reshape(1, 8, 1, 1).repeat(1, 1, 3, 3)
    mask = two_four_mask(weight)
    assert mask.shape == weight.shape
    assert torch.equal(mask[0, :, 1, 2], two_four_mask(torch.tensor([ROW]))[0])


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**16))
def test_exactly_half_stays_and_what_stays_is_two_four(rows, groups, seed):
    weight = torch.randn(rows, 4 * groups, generator=torch.Generator().manual_seed(seed))
    mask = two_four_mask(weight)
    assert int(mask.sum()) == weight.numel() // 2
    assert is_two_four((weight * mask).numpy())
    assert torch.equal(two_four_mask(weight * mask), mask)


def test_the_pruned_share_is_that_of_the_norm():
    # Taken away are 0.1 + 0.3 and 0.2 + 0.05 of 1.7 and 1.1.
    assert pruned_share(torch.tensor([ROW], dtype=torch.float64)) == pytest.approx(0.65 / 2.8, rel=1e-12)
    assert pruned_share(torch.zeros(1, 4)) == 0


def test_importance_is_the_share_of_what_is_lost():
    network = nn.ModuleDict({"a": nn.Sequential(nn.Linear(4, 1), nn.Linear(4, 1)), "b": nn.Linear(4, 1)})
    network["a"][0].weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])  # loses 3 of 10
    network["a"][1].weight.data = torch.tensor([[0.0, 0.0, 5.0, 5.0]])  # loses nothing of 10
    network["b"].weight.data = torch.tensor([[1.0, 1.0, 4.0, 4.0]])  # loses 2 of 10
    assert layer_importance(network, ["a", "b"]) == pytest.approx([3 / 7, 4 / 7])
    for layer in (network["a"][0], network["b"]):
        layer.weight.data *= two_four_mask(layer.weight)
    assert layer_importance(network, ["a", "b"]) == [0.5, 0.5]


def test_inputs_that_four_does_not_divide_are_refused():
    with pytest.raises(ShapeError, match=r"multiple of 4 inputs .* got \(2, 6\)"):
        two_four_mask(torch.zeros(2, 6))


def test_layers_are_told_apart():
    network = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(4, 2))
    with torch.no_grad():
        network[1].weight.mul_(two_four_mask(network[1].weight))
    assert two_four_layers(network) == {"0.weight": False, "1.weight": True}


def test_weights_gradients_and_momentum_become_zero_where_masked():
    layer = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    mask = torch.tensor([[True, False, True, False]])
    masks = WeightMasks(layer, {"weight": mask})
    masks.zero_weights()
    masks.zero_gradients()
    masks.zero_states([optimizer])
    for tensor in (layer.weight, layer.weight.grad, optimizer.state[layer.weight]["momentum_buffer"]):
        assert tensor.ne(0).tolist() == mask.tolist()


def test_a_mask_without_its_parameter_is_refused():
    with pytest.raises(SetupError, match="'bias', which is no parameter of Linear"):
        WeightMasks(nn.Linear(2, 2, bias=False), {"bias": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ShapeError, match=r"mask of `weight` must have shape \(2, 2\), got \(2,\)"):
        WeightMasks(nn.Linear(2, 2), {"weight": torch.ones(2, dtype=torch.bool)})

"""A network that computes with other weights than it stores, and says so in its state dict."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from lightning_kd.compression import LearnedLevels, TernaryWeights, UniformWeights, WeightSubstitution, layer_weights
from lightning_kd.compression.quantizers import quantize_activation, ternarize
from lightning_kd.errors import SetupError


def substituted(network, quantizer=None, **options):
    weights, quantizer = layer_weights(network), quantizer or TernaryWeights()
    quantizer.build({name: weight.parameter.detach() for name, weight in weights.items()})
    return WeightSubstitution(network, weights, quantizer, **options)


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_output_and_gradients_are_those_of_the_quantised_weights(network):
    x = torch.randn(4, 6)
    first, second = (ternarize(network[index].weight.detach()).requires_grad_() for index in (0, 2))
    by_hand = nn.functional.linear(x, first, network[0].bias).relu()
    by_hand = nn.functional.linear(by_hand, second, network[2].bias)
    gradients = torch.autograd.grad(by_hand.square().sum(), [first, second])
    substitution = substituted(network)
    output = network(x)
    assert torch.equal(output, by_hand)
    output.square().sum().backward()
    for index, gradient in zip((0, 2), gradients, strict=True):
        assert_close(network[index].weight.grad, gradient, rtol=1e-6, atol=1e-6)
    assert not substitution.unread


def test_the_state_dict_shows_what_computes_and_detaching_shows_what_is_stored(network):
    stored = {name: value.clone() for name, value in network.state_dict().items()}
    substitution = substituted(network)
    shown = network.state_dict()
    assert list(shown) == list(stored)
    assert torch.equal(shown["0.weight"], ternarize(stored["0.weight"]))
    assert torch.equal(substitution.stored()["0.weight"], stored["0.weight"])
    substitution.detach()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in stored.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_inputs_are_quantised_too(network):
    x = torch.randn(4, 6)
    expected = nn.functional.linear(quantize_activation(x, bits=4, clip=1.0), ternarize(network[0].weight))
    substitution = substituted(network, activation_bits=4, activation_clip=1.0)
    assert torch.equal(network[0](x), expected + network[0].bias)
    substitution.detach()


def test_multi_head_attention_reads_quantised_weights():
    network = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(2, 3, 4)
    substitution = substituted(network, UniformWeights(levels=2))
    output = network(x, x, x)[0]
    plain = nn.MultiheadAttention(4, 2, batch_first=True)
    plain.load_state_dict(network.state_dict())
    assert_close(output, plain(x, x, x)[0], rtol=1e-6, atol=1e-6)
    assert not substitution.unread


def test_a_failing_call_leaves_the_stored_weight_in_place(network):
    stored = network[0].weight
    substituted(network)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network(torch.zeros(2, 7))
    assert network[0].weight is stored


def test_recomputed_activations_use_the_quantised_weights(network):
    x = torch.randn(4, 6)
    substituted(network, UniformWeights(levels=2))
    network(x).sum().backward()
    expected = network[2].weight.grad.clone()
    network.zero_grad()
    checkpoint(network, x, use_reentrant=False).sum().backward()
    assert torch.equal(network[2].weight.grad, expected)


def test_levels_alone_get_gradients(network):
    network.requires_grad_(False)
    quantizer = LearnedLevels(levels={"0.weight": 4, "2.weight": 3})
    substituted(network, quantizer)
    network(torch.randn(4, 6)).sum().backward()
    assert [len(positions) for positions in quantizer.positions] == [4, 3]
    assert all(positions.grad.ne(0).any() for positions in quantizer.positions)


def test_levels_start_at_the_quantiles():
    quantizer = LearnedLevels(levels=3)
    quantizer.build({"weight": torch.tensor([0.0, 0.1, 0.2, 0.3, 4.0])})
    assert_close(quantizer.positions[0].detach(), torch.tensor([0.0, 0.05, 1.0]), rtol=1e-6, atol=1e-6)


def test_levels_must_name_the_weights(network):
    with pytest.raises(SetupError, match=r"missing \['2.weight'\], unknown \['head'\]"):
        substituted(network, LearnedLevels(levels={"0.weight": 4, "head": 4}))


def test_what_would_stay_unquantised_is_refused(network):
    network[2].weight = nn.Linear(6, 5).weight
    network[0].weight = network[2].weight
    with pytest.raises(SetupError, match=r"`0\.weight` is shared"):
        substituted(network)
    with pytest.raises(SetupError, match="inputs of 'in_proj_weight' are inside of"):
        substituted(nn.MultiheadAttention(4, 2), activation_bits=8)
    with pytest.raises(SetupError, match="the student is compiled"):
        substituted(torch.compile(nn.Sequential(nn.Linear(2, 2)), backend="eager"))


def test_a_student_that_is_compiled_in_place_is_refused():
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].compile(backend="eager")
    with pytest.raises(SetupError, match=r"the student is compiled \(at '0'\)"):
        substituted(network)

"""Claims about gates on the channels, heads and units of a speech encoder."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd.compression import EncoderGates
from lightning_kd.compression.encoder_gates import norm_over
from lightning_kd.compression.hard_concrete import open_probability
from lightning_kd.errors import SetupError


@pytest.fixture
def encoder(speech_net):
    return speech_net(feat_extract_norm="group")


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def fill(gates, value):
    for gate in gates.gates.values():
        torch.nn.init.constant_(gate.log_alpha, value)


def test_the_whole_encoder_is_expected_where_every_gate_is_open(encoder):
    gates = EncoderGates(encoder)
    fill(gates, 40.0)
    assert gates.expected_parameters().item() == pytest.approx(parameters(encoder), rel=1e-6)
    assert gates.expected_sparsity().item() == pytest.approx(0.0, abs=1e-6)


def test_expected_parameters_are_products_of_expected_counts(encoder):
    gates = EncoderGates(encoder)
    fill(gates, 0.0)
    p = open_probability(torch.zeros(())).item()
    # Kernels 10, 3, 3, 3, 3, 2, 2 of 8 channels each; a group norm behind the first; width 16, 2 heads of 8, 24 units.
    convolutions = 10 * 8 * p + 2 * 8 * p + (3 * 4 + 2 * 2) * (8 * p) ** 2
    projection = 8 * p * (16 + 2) + 16
    layers = 3 * (4 * 16 * 16 * p + 3 * 16 * p + 16 + 24 * p * (16 + 1 + 16) + 16 + 4 * 16)
    positions = 16 * 4 * 16 + 16 + 16  # kernel, its norm by position, bias
    expected = convolutions + projection + layers + positions + 2 * 16 + embedding(encoder)
    assert gates.expected_parameters().item() == pytest.approx(expected, rel=1e-6)


def embedding(encoder):
    return sum(p.numel() for name, p in encoder.named_parameters() if name == "masked_spec_embed")


def test_sparsity_falls_with_every_gate(encoder):
    gates = EncoderGates(encoder)
    gates.expected_sparsity().backward()
    assert all(bool(gate.log_alpha.grad.lt(0).all()) for gate in gates.gates.values())


def test_gates_start_at_the_published_rates(encoder):
    gates = EncoderGates(encoder).gates
    assert gates["heads_0"].log_alpha.mean().item() == pytest.approx(4.59512, abs=0.05)
    assert gates["convolutions_3"].log_alpha.mean().item() == pytest.approx(4.59512, abs=0.05)
    assert gates["intermediate_2"].log_alpha.mean().item() == pytest.approx(0.0, abs=0.05)


def test_one_draw_serves_a_whole_call_and_another_the_next(encoder, audio):
    gates = EncoderGates(encoder)
    fill(gates, 0.0)
    detach = gates.attach(encoder)
    samples, _ = audio(1600, 1600)
    samples[1] = samples[0]
    encoder.train()
    first, second = (encoder(samples).last_hidden_state for _ in range(2))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    encoder.eval()
    assert torch.equal(encoder(samples).last_hidden_state, encoder(samples).last_hidden_state)
    detach()


def test_gates_learn_from_the_encoder_and_leave_it_as_it_was(encoder, audio):
    encoder.eval()
    samples, _ = audio(1600)
    before, keys = encoder(samples).last_hidden_state, list(encoder.state_dict())
    gates = EncoderGates(encoder)
    detach = gates.attach(encoder)
    encoder.train()
    encoder(samples).last_hidden_state.square().sum().backward()
    assert all(gate.log_alpha.grad is not None for gate in gates.gates.values())
    assert list(encoder.state_dict()) == keys
    detach()
    assert torch.equal(encoder.eval()(samples).last_hidden_state, before)


def test_only_what_is_named_is_gated(encoder):
    gates = EncoderGates(encoder, units=["heads"])
    assert sorted(gates.gates) == ["heads_0", "heads_1", "heads_2"]
    fill(gates, -40.0)
    removed = 3 * (4 * 16 * 16 + 3 * 16)  # of each layer all but the output's bias
    assert gates.expected_parameters().item() == pytest.approx(parameters(encoder) - removed, rel=1e-6)


def test_the_norm_of_open_channels_is_that_of_these_channels_alone():
    features, norm = torch.randn(2, 5, 6).double(), torch.nn.LayerNorm(6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    is_open = torch.tensor([True, False, True, True, False, True])
    expected = F.layer_norm(features[..., is_open], (4,), norm.weight[is_open], norm.bias[is_open], norm.eps)
    normed = norm_over(features, is_open, norm)
    assert_close(normed[..., is_open], expected, rtol=1e-12, atol=1e-12)
    assert not normed[..., ~is_open].any()


def test_refuses_what_cannot_be_gated(encoder, speech_net):
    with pytest.raises(SetupError, match="leave out 'convolutions' of a front end that normalises every frame"):
        EncoderGates(speech_net(feat_extract_norm="layer"))
    with pytest.raises(ValueError, match=r"`units` must be one of .*, got 'layers'"):
        EncoderGates(encoder, units=["layers"])
    with pytest.raises(ValueError, match="`units` must name some of convolutions, heads, intermediate, got none"):
        EncoderGates(encoder, units=[])
    with pytest.raises(SetupError, match=r"must have the shape that the gates were made for, .*heads=\(2, 2\)"):
        EncoderGates(encoder).attach(speech_net(num_hidden_layers=2, feat_extract_norm="group"))

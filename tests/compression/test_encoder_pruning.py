"""Claims about the physical removal of what gates have closed: nothing changes but the size."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.compression import EncoderGates, EncoderShape, find_encoder, prune_encoder
from lightning_kd.errors import SetupError

ENCODERS = {
    "hubert": {},
    "wav2vec2": {"name": "Wav2Vec2"},
    "no norm behind the front end": {"feat_proj_layer_norm": False},
    "convolutions with bias": {"conv_bias": True},
    "pre-norm": {"do_stable_layer_norm": True},
    "recogniser": {"kind": "ForCTC"},
    "classifier": {"kind": "ForSequenceClassification"},
}


def gated(make, units=("convolutions", "heads", "intermediate"), **settings):
    """A model whose norms are not trivial, in double precision, with gates of which about half are closed."""
    model = make(**{"feat_extract_norm": "group", "num_attention_heads": 4, **settings}).double().eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    _, encoder = find_encoder(model)
    gates = EncoderGates(encoder, units=units).double()
    for gate in gates.gates.values():
        nn.init.normal_(gate.log_alpha, -1.5, 2.0)
    return model, encoder, gates


@pytest.mark.parametrize("settings", ENCODERS.values(), ids=ENCODERS)
def test_the_smaller_network_computes_the_same(speech_net, audio, settings):
    model, encoder, gates = gated(speech_net, **settings)
    samples, mask = audio(2000, 1300, dtype=torch.float64)
    whole = model(samples, attention_mask=mask)[0]
    detach = gates.attach(encoder)
    expected = model(samples, attention_mask=mask)[0]
    detach()
    smaller = prune_encoder(model, gates)
    assert_close(smaller(samples, attention_mask=mask)[0], expected, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(expected, whole, atol=1e-3)
    assert torch.equal(model(samples, attention_mask=mask)[0], whole)  # the given one is not changed


def test_what_is_closed_is_gone(speech_net):
    model, _, gates = gated(speech_net)
    smaller = prune_encoder(model, gates)
    settled = gates.settled()
    shape = EncoderShape.of(smaller)
    assert shape.heads == tuple(int(settled[f"heads_{i}"].gt(0).sum()) for i in range(3))
    assert shape.intermediate == tuple(int(settled[f"intermediate_{i}"].gt(0).sum()) for i in range(3))
    assert shape.convolutions == tuple(int(settled[f"convolutions_{i}"].gt(0).sum()) for i in range(7))
    assert smaller.encoder.layers[0].feed_forward.intermediate_dense.weight.shape == (shape.intermediate[0], 16)
    kept = sum(p.numel() for p in smaller.parameters())
    assert kept < sum(p.numel() for p in model.parameters())
    # The formula knows the count of an open or closed gate, too; beside it are the factors of the last channels.
    for gate, values in zip(gates.gates.values(), settled.values(), strict=True):
        gate.log_alpha.data = torch.where(values > 0, 60.0, -60.0)
    assert gates.expected_parameters().item() + shape.convolutions[-1] == pytest.approx(kept, rel=1e-9)


@pytest.mark.parametrize("unit", ["heads", "intermediate"])
def test_a_layer_may_lose_everything(speech_net, audio, unit):
    model, encoder, gates = gated(speech_net)
    nn.init.constant_(gates.gates[f"{unit}_1"].log_alpha, -20.0)
    samples, _ = audio(1500, dtype=torch.float64)
    detach = gates.attach(encoder)
    expected = model(samples)[0]
    detach()
    smaller = prune_encoder(model, gates)
    assert getattr(EncoderShape.of(smaller), unit)[1] == 0
    assert_close(smaller(samples)[0], expected, rtol=1e-9, atol=1e-11)


def test_a_pruned_network_can_be_pruned_again(speech_net, audio):
    model, _, gates = gated(speech_net)
    nn.init.constant_(gates.gates["heads_2"].log_alpha, -20.0)
    once = prune_encoder(model, gates)
    again = EncoderGates(once).double()
    for gate in again.gates.values():
        nn.init.normal_(gate.log_alpha, 0.0, 2.0)
    samples, _ = audio(1500, dtype=torch.float64)
    detach = again.attach(once)
    expected = once(samples)[0]
    detach()
    assert_close(prune_encoder(once, again)(samples)[0], expected, rtol=1e-9, atol=1e-11)


def test_frozen_parameters_and_the_mode_are_kept(speech_net):
    model, encoder, gates = gated(speech_net)
    encoder.feature_extractor.requires_grad_(False)
    smaller = prune_encoder(model.train(), gates)
    assert smaller.training
    frozen = {name for name, p in smaller.named_parameters() if not p.requires_grad}
    own = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == own


def test_refuses_gates_of_another_encoder_and_a_convolution_without_channels(speech_net):
    model, _, gates = gated(speech_net)
    with pytest.raises(SetupError, match=r"`gates` must be those of this encoder's shape, .*heads=\(4, 4\)"):
        prune_encoder(speech_net(num_hidden_layers=2, feat_extract_norm="group", num_attention_heads=4), gates)
    nn.init.constant_(gates.gates["convolutions_0"].log_alpha, -20.0)
    with pytest.raises(SetupError, match=r"closed all channels of a convolution, leaving \(0, "):
        prune_encoder(model, gates)

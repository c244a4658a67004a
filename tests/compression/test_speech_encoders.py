"""Claims about encoders whose layers have widths of their own: described, made, saved and loaded."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.compression import EncoderShape, find_encoder, load_shaped, save_shaped, shaped_model
from lightning_kd.compression.speech_encoders import attention_parameters, feed_forward_parameters
from lightning_kd.errors import SetupError

UNEQUAL = EncoderShape(
    width=16, head_width=8, heads=(3, 0, 1), intermediate=(24, 5, 0), convolutions=(8, 8, 8, 6, 8, 8, 7), scaled=True
)


def test_parameters_equal_the_published_counts():
    assert attention_parameters(12, width=768, head_width=64) == 2_362_368
    assert attention_parameters(6.5, width=768, head_width=64) == 1_279_968
    assert feed_forward_parameters(3072, width=768) == 4_722_432


def test_a_plain_encoder_has_the_shape_of_its_configuration(speech_net):
    assert EncoderShape.of(speech_net()) == EncoderShape(
        width=16, head_width=8, heads=(2,) * 3, intermediate=(24,) * 3, convolutions=(8,) * 7
    )


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
@pytest.mark.parametrize("stable", [False, True])
def test_any_shape_can_be_made_and_read_back(speech_net, audio, name, stable):
    plain = speech_net(name, do_stable_layer_norm=stable)
    made = shaped_model(type(plain), plain.config, UNEQUAL).eval()
    assert EncoderShape.of(made) == UNEQUAL
    samples, mask = audio(1600, 900)
    assert made(samples, attention_mask=mask).last_hidden_state.shape == (2, 4, 16)
    assert plain.config.conv_dim == (8,) * 7  # the given configuration is not changed


def test_parameters_of_a_layer_are_those_of_the_formulas(speech_net):
    plain = speech_net()
    made = shaped_model(type(plain), plain.config, UNEQUAL)
    for layer, heads, units in zip(made.encoder.layers, UNEQUAL.heads, UNEQUAL.intermediate, strict=True):
        count = sum(p.numel() for p in layer.attention.parameters())
        assert count == attention_parameters(heads, width=16, head_width=8)
        assert sum(p.numel() for p in layer.feed_forward.parameters()) == feed_forward_parameters(units, width=16)


def test_without_heads_and_units_a_layer_adds_its_biases(speech_net):
    plain = speech_net()
    shape = replace(UNEQUAL, heads=(0,), intermediate=(0,), convolutions=(8,) * 7, scaled=False)
    (layer,) = shaped_model(type(plain), plain.config, shape).encoder.layers
    torch.nn.init.normal_(layer.attention.bias)
    torch.nn.init.normal_(layer.feed_forward.bias)
    states = torch.randn(2, 5, 16)
    middle = layer.layer_norm(states + layer.attention.bias)
    assert_close(layer(states), layer.final_layer_norm(middle + layer.feed_forward.bias))


@pytest.mark.parametrize("kind", ["Model", "ForCTC"])
def test_what_was_saved_is_loaded(speech_net, audio, kind, tmp_path):
    plain = speech_net(kind=kind)
    made = shaped_model(type(plain), plain.config, UNEQUAL).eval()
    save_shaped(made, tmp_path / "pruned")
    loaded = load_shaped(type(plain), tmp_path / "pruned")
    samples, mask = audio(1600, 900)
    assert torch.equal(loaded(samples, attention_mask=mask)[0], made(samples, attention_mask=mask)[0])
    assert EncoderShape.of(find_encoder(loaded)[1]) == UNEQUAL
    stored = json.loads((tmp_path / "pruned" / "config.json").read_text(encoding="utf-8"))
    assert stored["encoder_shape"]["heads"] == [3, 0, 1]


def test_what_has_no_shape_is_refused(speech_net, tmp_path):
    plain = speech_net()
    plain.save_pretrained(tmp_path)
    with pytest.raises(SetupError, match=r"what save_shaped\(\) wrote, got .*: use from_pretrained"):
        load_shaped(type(plain), tmp_path)


def test_encoders_with_attention_of_another_kind_are_refused(speech_net):
    with pytest.raises(SetupError, match=r"HubertModel or Wav2Vec2Model .* got WavLMModel"):
        find_encoder(speech_net("WavLM"))

"""Claims about loading public checkpoints, on small ones of the same classes."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import WhisperConfig, WhisperForConditionalGeneration

from lightning_kd.speech import load_speech_model


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2", "WavLM"])
@pytest.mark.parametrize(
    ("head", "kind", "settings"),
    [
        ("none", "Model", {}),
        ("ctc", "ForCTC", {"vocab_size": 5}),
        ("classification", "ForSequenceClassification", {"num_labels": 4}),
    ],
)
def test_weights_come_back_and_what_disturbs_distillation_is_off(name, head, kind, settings, speech_net, tmp_path):
    saved = speech_net(name, kind=kind, layerdrop=0.1, apply_spec_augment=True, **settings)
    saved.save_pretrained(tmp_path)
    loaded = load_speech_model(tmp_path, head=head)
    assert type(loaded) is type(saved)
    assert loaded.state_dict().keys() == saved.state_dict().keys()
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert (loaded.config.layerdrop, loaded.config.apply_spec_augment, loaded.training) == (0.0, False, False)


def test_spec_augment_and_attention_maps_are_there_if_asked_for(speech_net, audio, tmp_path):
    speech_net(apply_spec_augment=True).save_pretrained(tmp_path)
    loaded = load_speech_model(tmp_path, attentions=True, spec_augment=True)
    assert loaded.config.apply_spec_augment
    assert len(loaded(audio(4000)[0], output_attentions=True).attentions) == 3


def test_weights_of_half_precision_become_float32(speech_net, tmp_path):
    speech_net().half().save_pretrained(tmp_path)
    assert {p.dtype for p in load_speech_model(tmp_path).parameters()} == {torch.float32}


def test_positions_under_their_older_names_are_read(speech_net, audio, tmp_path):
    saved = speech_net().eval()
    saved.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in load_file(file).items()
    }
    assert any(key.endswith("weight_g") for key in old)
    save_file(old, file, metadata={"format": "pt"})
    padded, _ = audio(4000)
    with torch.no_grad():
        assert_close(load_speech_model(tmp_path)(padded).last_hidden_state, saved(padded).last_hidden_state)


def test_whisper_is_loaded_with_its_layerdrops_off(tmp_path):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8, "vocab_size": 60}
    tokens = {"pad_token_id": 50, "bos_token_id": 50, "eos_token_id": 50, "decoder_start_token_id": 51}
    config = WhisperConfig(
        **sizes, **heads, **tokens, max_source_positions=30, max_target_positions=20, encoder_layerdrop=0.1
    )
    WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    loaded = load_speech_model(tmp_path, head="transcription")
    assert type(loaded) is WhisperForConditionalGeneration
    assert (loaded.config.encoder_layerdrop, loaded.config.decoder_layerdrop) == (0.0, 0.0)


def test_an_unknown_head_raises():
    with pytest.raises(
        ValueError, match="`head` must be one of 'none', 'ctc', 'classification', 'transcription', got 'tts'"
    ):
        load_speech_model("anything", head="tts")

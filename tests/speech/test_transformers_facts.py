"""What the installed transformers does, as far as distillation of speech models relies on it."""

import pytest
import torch
from torch.testing import assert_close
from transformers import WhisperConfig, WhisperForConditionalGeneration

from lightning_kd.errors import TapError
from lightning_kd.recorder import TapRecorder
from lightning_kd.speech import speech_encoder
from lightning_kd.taps import Tap

# WavLM of transformers 5.23 on torch 2.15.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask")

LENGTHS = (6400, 3000)  # 19 and 9 frames
FRAMES = [19, 9]
ENCODERS = ["Hubert", "Wav2Vec2", "WavLM"]


def largest_difference(model, padded, mask, *, with_mask):
    """Between the second utterance in the batch and alone, on its valid frames."""
    with torch.no_grad():
        batch = model(padded, attention_mask=mask if with_mask else None).last_hidden_state
        alone = model(padded[1:, : LENGTHS[1]]).last_hidden_state
    return (batch[1, : FRAMES[1]] - alone[0]).abs().max().item()


@pytest.fixture
def whisper():
    """A small Whisper of 60 mel frames a clip."""
    config = WhisperConfig(
        vocab_size=60,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=30,
        max_target_positions=20,
        pad_token_id=50,
        bos_token_id=50,
        eos_token_id=50,
        decoder_start_token_id=51,
    )
    return WhisperForConditionalGeneration(config).eval()


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_our_layers_are_the_hidden_states(name, pre_norm, speech_net, audio):
    model, (padded, mask) = speech_net(name, do_stable_layer_norm=pre_norm).eval(), audio(*LENGTHS)
    encoder = speech_encoder(model)
    taps = [encoder.layer(index) for index in range(encoder.depth + 1)]
    recorder = TapRecorder(model, [*taps, encoder.last()])
    with recorder.recording() as calls:
        output = model(padded, attention_mask=mask, output_hidden_states=True)
    recorder.detach()
    assert len(output.hidden_states) == encoder.depth + 1
    for tap, hidden in zip(taps, output.hidden_states, strict=True):
        assert torch.equal(calls[0].features[tap], hidden)
    assert torch.equal(calls[0].features[encoder.last()], output.last_hidden_state)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_last_hidden_state_is_normalised_afterwards_in_pre_norm_models_only(name, speech_net, audio):
    padded, _ = audio(*LENGTHS)
    with torch.no_grad():
        post, pre = (speech_net(name, do_stable_layer_norm=pre_norm).eval() for pre_norm in (False, True))
        output = post(padded, output_hidden_states=True)
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        output = pre(padded, output_hidden_states=True)
        assert not torch.allclose(output.hidden_states[-1], output.last_hidden_state)
        assert_close(pre.encoder.layer_norm(output.hidden_states[-1]), output.last_hidden_state)


def test_hidden_states_can_be_chosen_and_the_others_are_none(speech_net, audio):
    output = speech_net().eval()(audio(*LENGTHS)[0], output_hidden_states=[1, 3])
    assert [hidden is None for hidden in output.hidden_states] == [True, False, True, False]


def test_attention_maps_need_the_eager_implementation(speech_net, audio):
    model, (padded, _) = speech_net().eval(), audio(*LENGTHS)
    assert model.config._attn_implementation == "sdpa"
    assert model(padded, output_attentions=True).attentions == ()
    model.set_attn_implementation("eager")
    assert [tuple(m.shape) for m in model(padded, output_attentions=True).attentions] == [(2, 2, 19, 19)] * 3


def test_layers_return_a_tensor_and_those_of_wavlm_a_tuple(speech_net, audio):
    for name, kind in (("Hubert", torch.Tensor), ("Wav2Vec2", torch.Tensor), ("WavLM", tuple)):
        model, returned = speech_net(name).eval(), []
        model.encoder.layers[0].register_forward_hook(lambda _, __, output, seen=returned: seen.append(output))
        model(audio(*LENGTHS)[0])
        assert isinstance(returned[0], kind)


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
def test_layerdrop_removes_hidden_states_in_training_only(name, speech_net, audio):
    model, (padded, _) = speech_net(name, layerdrop=0.5, num_hidden_layers=4), audio(*LENGTHS)
    lengths = [len(model.train()(padded, output_hidden_states=True).hidden_states) for _ in range(12)]
    assert min(lengths) < 5
    assert len(model.eval()(padded, output_hidden_states=True).hidden_states) == 5


@pytest.mark.parametrize("masks", ["padding", "spans"])
def test_what_feature_projection_returns_is_overwritten_later(masks, speech_net, audio):
    model, (padded, mask) = speech_net(apply_spec_augment=True).eval(), audio(*LENGTHS)
    spans = torch.arange(19)[None].expand(2, -1) % 3 == 0
    seen = []
    model.feature_projection.register_forward_hook(lambda _, __, output: seen.append((output, output.clone())))
    model(padded, **({"attention_mask": mask} if masks == "padding" else {"mask_time_indices": spans}))
    reference, copy = seen[0]
    assert not torch.equal(reference, copy)
    if masks == "padding":
        assert reference[1, FRAMES[1] :].eq(0).all()
        assert copy[1, FRAMES[1] :].ne(0).any()
    else:
        assert torch.equal(reference[spans], model.masked_spec_embed.expand(int(spans.sum()), -1))


def test_a_tap_there_says_so_and_copies_if_it_may(speech_net, audio):
    model, (padded, mask), tap = speech_net().eval(), audio(*LENGTHS), Tap("feature_projection")
    recorder = TapRecorder(model, [tap])
    with pytest.raises(TapError, match="'feature_projection' was changed in place"), recorder.recording():
        model(padded, attention_mask=mask)
    for _ in range(2):
        with recorder.recording(copy_overwritten=True) as calls:
            model(padded, attention_mask=mask)
    assert calls[0].features[tap][1, FRAMES[1] :].ne(0).any()


def test_positions_are_a_parametrised_convolution(speech_net):
    keys = speech_net().state_dict()
    prefix = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    assert {f"{prefix}0", f"{prefix}1"} <= keys.keys()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_length_of_the_frames_is_the_published_one(name, speech_net):
    samples = torch.tensor([400, 800, 8000, 16000, 32000, 250000, 480000])
    frames = speech_net(name)._get_feat_extract_output_lengths(samples)
    assert frames.tolist() == [1, 2, 24, 49, 99, 781, 1499]


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
def test_a_layer_norm_in_front_makes_padding_harmless_if_there_is_a_mask(name, speech_net, audio):
    model, (padded, mask) = speech_net(name, feat_extract_norm="layer").eval(), audio(*LENGTHS)
    assert largest_difference(model, padded, mask, with_mask=True) < 1e-5
    assert largest_difference(model, padded, mask, with_mask=False) > 0.01


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
def test_a_group_norm_in_front_sees_the_padding_whatever_the_mask(name, with_mask, speech_net, audio):
    model, (padded, mask) = speech_net(name, feat_extract_norm="group").eval(), audio(*LENGTHS)
    assert largest_difference(model, padded, mask, with_mask=with_mask) > 0.1


def test_padded_frames_are_not_zero(speech_net, audio):
    padded, mask = audio(*LENGTHS)
    output = speech_net().eval()(padded, attention_mask=mask).last_hidden_state
    assert output[1, FRAMES[1] :].abs().mean() > 0.1


def test_hubert_may_hide_padding_in_training_and_wav2vec2_does_not(speech_net, audio):
    padded, mask = audio(*LENGTHS)
    hidden = {}
    for name in ("Hubert", "Wav2Vec2"):
        model = speech_net(name, apply_spec_augment=True, mask_time_prob=0.9, mask_time_length=2).train()
        seen = []
        model.encoder.register_forward_pre_hook(lambda _, args, kept=seen: kept.append(args[0].clone()))
        for _ in range(5):
            model(padded, attention_mask=mask)
        embedding = model.masked_spec_embed
        hidden[name] = any(bool((call[1, FRAMES[1] :] == embedding).all(dim=1).any()) for call in seen)
    assert hidden == {"Hubert": True, "Wav2Vec2": False}


def test_ctc_sums_and_keeps_infinities_unless_told_otherwise(speech_net):
    config = speech_net(kind="ForCTC", vocab_size=5).config
    assert (config.ctc_loss_reduction, config.ctc_zero_infinity, config.pad_token_id) == ("sum", False, 0)


def test_blanks_among_ctc_labels_are_ignored(speech_net, audio):
    model = speech_net(kind="ForCTC", vocab_size=5, ctc_zero_infinity=True).eval()
    padded, mask = audio(*LENGTHS)
    losses = [
        model(padded, attention_mask=mask, labels=torch.tensor(labels)).loss
        for labels in ([[1, 2, -100], [3, -100, -100]], [[1, 2, 0], [3, 0, 0]])
    ]
    assert_close(losses[0], losses[1])


def test_hidden_states_of_whisper_end_behind_the_final_norm(whisper):
    seen = {}
    for side in ("encoder", "decoder"):
        layer = whisper.get_submodule(f"model.{side}.layers")[-1]
        layer.register_forward_hook(lambda _, __, output, key=side: seen.update({key: output}))
    output = whisper(torch.randn(1, 8, 60), decoder_input_ids=torch.tensor([[51, 3]]), output_hidden_states=True)
    assert torch.equal(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)
    for side, states in (("encoder", output.encoder_hidden_states), ("decoder", output.decoder_hidden_states)):
        hooked = seen[side][0] if isinstance(seen[side], tuple) else seen[side]
        assert not torch.allclose(hooked, states[-1])
        assert_close(whisper.get_submodule(f"model.{side}.layer_norm")(hooked), states[-1])


def test_whisper_hears_clips_of_one_length_and_ignores_the_mask(whisper):
    mel, tokens = torch.randn(1, 8, 60), torch.tensor([[51, 3]])
    mask = torch.zeros(1, 60, dtype=torch.long)
    assert torch.equal(
        whisper(mel, decoder_input_ids=tokens).logits,
        whisper(mel, attention_mask=mask, decoder_input_ids=tokens).logits,
    )
    assert whisper.model.encoder(mel).last_hidden_state.shape[1] == 30
    with pytest.raises(ValueError, match="expects the mel input features to be of length 60, but found 40"):
        whisper(mel[..., :40], decoder_input_ids=tokens)


def test_whisper_prepends_the_start_token_to_labels_that_have_it(whisper):
    from transformers.models.whisper.modeling_whisper import shift_tokens_right

    shifted = shift_tokens_right(torch.tensor([[51, 3, 4, 5]]), 50, whisper.config.decoder_start_token_id)
    assert shifted.tolist() == [[51, 51, 3, 4]]


def test_whispers_depth_is_its_encoders_and_its_last_layer_its_embedding(whisper):
    assert whisper.config.num_hidden_layers == whisper.config.encoder_layers == 3
    assert whisper.proj_out.weight.data_ptr() == whisper.model.decoder.embed_tokens.weight.data_ptr()


def test_a_classifier_pools_the_valid_frames(speech_net, audio):
    model, (padded, mask) = speech_net(kind="ForSequenceClassification").eval(), audio(*LENGTHS)
    with torch.no_grad():
        together, alone = model(padded, attention_mask=mask).logits, model(padded[1:, : LENGTHS[1]]).logits
    assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)

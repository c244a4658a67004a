"""Claims about the students that are cut out of, or thinner than, a speech encoder."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoModel, HubertConfig, HubertModel

from lightning_kd.errors import SetupError
from lightning_kd.students import ThinHubert, armhubert_config, distilhubert_student, fithubert_config
from lightning_kd.teachers import FrozenTeacher

LENGTHS = (6400, 3000, 4100)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def thin(**settings):
    """A small `ThinHubert` whose padding is harmless."""
    config = fithubert_config() if settings.pop("fit", False) else HubertConfig(layerdrop=0.0, conv_dim=(8,) * 7)
    small = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 4,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "feat_extract_norm": "layer",
        "hidden_dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
    }
    config.update(small | settings)
    return ThinHubert(config)


def test_of_hubert_base_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(distilhubert_student(HubertModel(HubertConfig()))) == 23_491_968


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2", "WavLM"])
def test_it_starts_with_the_teachers_front_and_first_layers(name, norm, speech_net):
    teacher = speech_net(name, feat_extract_norm=norm, layerdrop=0.1)
    student = distilhubert_student(FrozenTeacher(teacher))
    own, given = student.state_dict(), teacher.state_dict()
    assert all(torch.equal(value, given[key]) for key, value in own.items())
    missing = {key.split(".")[1] for key in given.keys() - own.keys() if key.startswith("encoder.layers")}
    assert missing == {"layers"}
    assert len(student.encoder.layers) == 2
    assert (student.config.layerdrop, student.config.apply_spec_augment) == (0.0, False)
    assert hasattr(student.feature_projection, "layer_norm") == (name == "WavLM")
    assert all(p.requires_grad for key, p in student.named_parameters() if key != "masked_spec_embed")


def test_its_weights_are_its_own(speech_net):
    teacher = speech_net()
    before = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        for parameter in distilhubert_student(teacher).parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("factor", [0.1, 0.0])
def test_the_gradient_of_its_convolutions_is_scaled_and_no_other(factor, speech_net, audio):
    teacher, gradients = speech_net(), []
    for scale in (1.0, factor):
        student = distilhubert_student(teacher, feature_gradient=scale)
        student(audio(*LENGTHS)[0]).last_hidden_state.square().sum().backward()
        gradients.append({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    for name, whole in gradients[0].items():
        expected = whole * (factor if name.startswith("feature_extractor") else 1.0)
        assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-4)


def test_it_is_saved_and_loaded_as_a_plain_hubert(speech_net, audio, tmp_path):
    student = distilhubert_student(speech_net("Wav2Vec2")).eval()
    student.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is HubertModel
    padded, mask = audio(*LENGTHS)
    with torch.no_grad():
        assert torch.equal(
            loaded(padded, attention_mask=mask).last_hidden_state,
            student(padded, attention_mask=mask).last_hidden_state,
        )


def test_it_is_captured_for_export_like_any_network(speech_net, audio):
    student = distilhubert_student(speech_net()).eval()
    padded, _ = audio(4000)
    program = torch.export.export(student, (padded,))
    assert_close(program.module()(padded).last_hidden_state, student(padded).last_hidden_state)


def test_depth_is_checked(speech_net):
    with pytest.raises(SetupError, match="`layers` must be from 1 to the teacher's 3, got 4"):
        distilhubert_student(speech_net(), layers=4)
    with pytest.raises(ValueError, match=r"`feature_gradient` must be a finite number of at least 0, got -0\.1"):
        distilhubert_student(speech_net(), feature_gradient=-0.1)
    with pytest.raises(SetupError, match=r"exactly one speech encoder .*, found 0"):
        distilhubert_student(nn.Linear(2, 2))


def test_the_sizes_are_those_that_were_published():
    with torch.device("meta"):
        fit, arm = ThinHubert(fithubert_config()), ThinHubert(armhubert_config())
    assert parameters(arm) == 26_442_208
    assert [len(model.encoder.layers) for model in (fit, arm)] == [12, 12]
    convolutions = [layer.conv for layer in fit.feature_extractor.conv_layers]
    assert [(c.out_channels, *c.kernel_size, *c.stride) for c in convolutions] == [
        (128, 10, 5),
        (256, 1, 1),
        *[(256, 3, 2)] * 4,
        (512, 1, 1),
        *[(512, 2, 2)] * 2,
    ]
    reduction = fit.encoder.time_reduction
    assert (reduction.in_channels, reduction.out_channels, reduction.kernel_size, reduction.stride) == (
        480,
        480,
        (2,),
        (2,),
    )


def test_without_options_it_is_a_hubert(speech_net, audio):
    plain = speech_net().eval()
    student = ThinHubert(plain.config).eval()
    student.load_state_dict(plain.state_dict())
    padded, mask = audio(*LENGTHS)
    with torch.no_grad():
        assert_close(student(padded).last_hidden_state, plain(padded).last_hidden_state)
        ours, theirs = (model(padded, attention_mask=mask).last_hidden_state for model in (student, plain))
        valid = plain._get_feature_vector_attention_mask(19, mask)
        assert_close(ours[valid], theirs[valid])


@pytest.mark.parametrize("samples", [4000, 4320, 6400])
def test_two_frames_become_one_and_a_third_is_dropped(samples, audio):
    student = thin(fit=True).eval()
    frames = student._get_feat_extract_output_lengths(samples)
    assert student(audio(samples)[0]).last_hidden_state.shape[1] == frames // 2
    assert student.frame_lengths(torch.tensor([samples])).tolist() == [frames // 2]


@pytest.mark.parametrize("settings", [{"fit": True}, {"attention_reuse": [False, True, False, True]}])
def test_padding_is_harmless(settings, audio):
    student, (padded, mask) = thin(**settings).eval(), audio(*LENGTHS)
    with torch.no_grad():
        together = student(padded, attention_mask=mask).last_hidden_state
        for row, length in enumerate(LENGTHS):
            alone = student(padded[row : row + 1, :length]).last_hidden_state
            assert_close(together[row : row + 1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_a_layer_that_reuses_a_map_has_no_queries_and_keys_and_applies_the_one_before(audio):
    student = thin(attention_reuse=[False, True, True, False]).eval()
    names = [{name for name, _ in layer.attention.named_children()} for layer in student.encoder.layers]
    assert names == [
        every := {"q_proj", "k_proj", "v_proj", "out_proj"},
        reusing := {"v_proj", "out_proj"},
        reusing,
        every,
    ]
    maps = []
    for layer in student.encoder.layers:
        layer.register_forward_hook(lambda _, __, output: maps.append(output[1]))
    output = student(audio(4000)[0], output_hidden_states=True)
    assert maps[0] is maps[1] is maps[2]
    assert not torch.equal(maps[2], maps[3])
    layer, hidden = student.encoder.layers[1], output.hidden_states[1]
    values = layer.attention.v_proj(hidden).reshape(1, 12, 2, 8)
    mixed = torch.einsum("nhts,nshd->nthd", maps[0], values).reshape(1, 12, 16)
    after = layer.layer_norm(hidden + layer.attention.out_proj(mixed))
    assert_close(layer.final_layer_norm(after + layer.feed_forward(after)), output.hidden_states[2])


@pytest.mark.parametrize("settings", [{"fit": True}, {"attention_reuse": [False, True, False, True]}])
def test_it_is_saved_and_loaded(settings, audio, tmp_path):
    student = thin(**settings).eval()
    student.save_pretrained(tmp_path)
    loaded, (padded, mask) = ThinHubert.from_pretrained(tmp_path), audio(*LENGTHS)
    with torch.no_grad():
        outputs = [model(padded, attention_mask=mask).last_hidden_state for model in (student, loaded)]
    assert torch.equal(*outputs)


def test_settings_that_do_not_fit_raise():
    with pytest.raises(SetupError, match=r"post-norm model without LayerDrop, got do_stable_layer_norm=True"):
        thin(do_stable_layer_norm=True)
    with pytest.raises(SetupError, match=r"layerdrop=0\.1"):
        thin(layerdrop=0.1)
    with pytest.raises(SetupError, match=r"for each of the 4 layers .* got \[False, True\]"):
        thin(attention_reuse=[False, True])
    with pytest.raises(SetupError, match=r"the first has none to reuse, got \[True, False, True, False\]"):
        thin(attention_reuse=[True, False, True, False])
    with pytest.raises(ValueError, match="`time_reduction` must be a finite number above 0, got 0"):
        thin(time_reduction=0)

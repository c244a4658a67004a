"""Claims about Whisper students: which layers they have, what is copied, what they can do."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.students import distil_whisper_student, draft_decoder, maximally_spaced


@pytest.fixture
def mel():
    return torch.randn(2, 16, 200)


# The sheet's values.
@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        (32, 2, [0, 31]),
        (24, 2, [0, 23]),
        (12, 2, [0, 11]),
        (12, 4, [0, 3, 7, 11]),
        (6, 3, [0, 2, 5]),
        (4, 1, [3]),
        (32, 16, [*range(0, 30, 2), 31]),
        (5, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_layers_lie_as_far_apart_as_possible(layers, count, expected):
    assert maximally_spaced(layers, count) == expected


def test_the_student_has_the_first_and_the_last_layer_and_everything_else(whisper_parts):
    teacher = whisper_parts.make(decoder_layers=4)
    student = distil_whisper_student(teacher)
    theirs = teacher.state_dict()
    for name, value in student.state_dict().items():
        source = name.replace("decoder.layers.1.", "decoder.layers.3.")
        assert_close(value, theirs[source], rtol=0.0, atol=0.0)
    assert student.config.decoder_layers == len(student.model.decoder.layers) == 2
    assert student.config.encoder_layers == 2
    assert student.proj_out.weight.data_ptr() == student.model.decoder.embed_tokens.weight.data_ptr()
    assert student.proj_out.weight.data_ptr() != teacher.proj_out.weight.data_ptr()
    assert student.training


def test_the_encoder_is_frozen_and_gets_no_gradient(whisper_parts, mel):
    student = distil_whisper_student(whisper_parts.make())
    student(input_features=mel, labels=torch.full((2, 3), 7)).loss.backward()
    learnt = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert learnt
    assert not any(name.startswith("model.encoder") for name in learnt)
    free = distil_whisper_student(whisper_parts.make(), freeze_encoder=False, freeze_positions=True)
    assert free.model.encoder.conv1.weight.requires_grad
    assert not free.model.decoder.embed_positions.weight.requires_grad


def test_a_student_with_all_layers_says_what_the_teacher_says(whisper_parts, mel):
    teacher = whisper_parts.make(decoder_layers=3)
    student = distil_whisper_student(teacher, decoder_layers=3).eval()
    tokens = torch.tensor([[257, 3, 4]]).expand(2, 3)
    outputs = [model(input_features=mel, decoder_input_ids=tokens).logits for model in (student, teacher)]
    assert_close(*outputs, rtol=0.0, atol=0.0)


def test_layers_can_be_named_and_the_encoder_cut(whisper_parts):
    teacher = whisper_parts.make(decoder_layers=4)
    student = distil_whisper_student(teacher, decoder_layers=[1, 2], encoder_layers=1)
    assert student.config.encoder_layers == 1
    assert_close(student.model.decoder.layers[0].fc1.weight, teacher.model.decoder.layers[1].fc1.weight)
    assert_close(student.model.encoder.layers[0].fc1.weight, teacher.model.encoder.layers[1].fc1.weight)


def test_generation_settings_come_along_without_what_names_other_layers(whisper_parts):
    teacher = whisper_parts.make()
    teacher.generation_config.forced_decoder_ids = [[1, 258]]
    teacher.generation_config.alignment_heads = [[3, 1]]
    before = copy.deepcopy(teacher.generation_config.to_dict())
    student = distil_whisper_student(teacher)
    assert student.generation_config.forced_decoder_ids is None
    assert not hasattr(student.generation_config, "alignment_heads")
    assert student.generation_config.lang_to_id == teacher.generation_config.lang_to_id
    assert teacher.generation_config.to_dict() == before


def test_survives_saving_with_its_processor(whisper_parts, mel, tmp_path):
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    student = distil_whisper_student(whisper_parts.make()).eval()
    student.save_pretrained(tmp_path)
    whisper_parts.processor.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    tokens = torch.tensor([[257, 3, 4]]).expand(2, 3)
    outputs = [model(input_features=mel, decoder_input_ids=tokens).logits for model in (student, loaded)]
    assert_close(*outputs, rtol=0.0, atol=0.0)
    assert loaded.generation_config.no_timestamps_token_id == whisper_parts.index["<|notimestamps|>"]
    assert WhisperProcessor.from_pretrained(tmp_path).tokenizer.get_vocab() == whisper_parts.tokenizer.get_vocab()


@pytest.mark.parametrize("draft", [draft_decoder, lambda student: student.eval()], ids=["decoder", "whole"])
def test_drafting_does_not_change_what_the_teacher_writes(whisper_parts, mel, draft):
    teacher = whisper_parts.make(decoder_layers=3)
    student = distil_whisper_student(teacher, decoder_layers=2)
    options = {"language": "en", "task": "transcribe", "max_new_tokens": 12}
    for features in mel.split(1):
        alone = teacher.generate(features, **options)
        assisted = teacher.generate(features, assistant_model=draft(student), **options)
        words = [ids[ids < 256].tolist() for ids in (alone, assisted)]
        assert words[0] == words[1]
        assert words[0]


def test_refuses_what_is_no_whisper_and_layers_that_it_has_not(whisper_parts):
    teacher = whisper_parts.make(decoder_layers=4)
    with pytest.raises(SetupError, match=r"must be a WhisperForConditionalGeneration of transformers, got Linear"):
        distil_whisper_student(nn.Linear(2, 2))
    with pytest.raises(SetupError, match=r"`decoder_layers` must be from 1 to 4, the teacher's layers, got 5"):
        distil_whisper_student(teacher, decoder_layers=5)
    with pytest.raises(SetupError, match=r"increasing indices of the teacher's 4 layers, got \[2, 1\]"):
        distil_whisper_student(teacher, decoder_layers=[2, 1])
    with pytest.raises(SetupError, match=r"`encoder_layers` must be .*2 layers, got \[0, 2\]"):
        distil_whisper_student(teacher, encoder_layers=[0, 2])
    with pytest.raises(SetupError, match=r"`count` must be from 1 to 4, .* got 0"):
        maximally_spaced(4, 0)

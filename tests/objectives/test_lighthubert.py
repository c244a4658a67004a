"""Claims about the distillation into a supernet that sees hidden spans."""

import pytest
import torch
from torch.testing import assert_close

from lightning_kd import Distiller, FrozenTeacher
from lightning_kd.errors import SetupError
from lightning_kd.losses import contextual_target, hidden_frame_regression
from lightning_kd.objectives import LightHuBERTKD
from lightning_kd.objectives.lighthubert import without_spans
from lightning_kd.students import SearchSpace, SpeechSupernet, supernet_encoder

SPACE = SearchSpace(widths=(8, 16), heads=(1, 2), ratios=(1.5,), depths=(2, 3), head_width=8, convolutions=(8,) * 7)
SPANS = torch.tensor([[False, True, True, False, False, True], [True, False, False, False, True, False]])
VALID = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])


@pytest.fixture
def supernet(speech_net):
    plain = speech_net(apply_spec_augment=True)
    return SpeechSupernet(supernet_encoder(type(plain), plain.config, SPACE).double(), SPACE)


@pytest.fixture
def teacher(speech_net):
    return speech_net(hidden_size=24, num_attention_heads=3).double()


def watched(student, teacher, objective, inputs):
    frozen = FrozenTeacher(teacher, input_transform=without_spans)
    distiller = Distiller(student, frozen, [objective]).build([inputs])
    distiller.adapters.double()
    return distiller, lambda: calls_of(distiller, student, inputs)


def calls_of(distiller, student, inputs):
    with distiller.watch() as calls:
        student(**inputs)
    return distiller.losses(torch.zeros(()), calls).terms["lighthubert"]


def inputs_of(audio, **more):
    samples, mask = audio(2000, 900, dtype=torch.float64)
    return {"input_values": samples, "attention_mask": mask, "mask_time_indices": SPANS, **more}


@pytest.mark.parametrize("average_top", [None, 2])
def test_only_valid_hidden_frames_are_regressed_from_the_whole_input(supernet, teacher, audio, average_top):
    objective = LightHuBERTKD(average_top=average_top, distance="l1")
    inputs = inputs_of(audio)
    _, term = watched(supernet, teacher, objective, inputs)
    predicted = objective.head(supernet(**inputs).last_hidden_state)
    clean = {name: value for name, value in inputs.items() if name != "mask_time_indices"}
    states = teacher(**clean, output_hidden_states=True).hidden_states
    target = states[-1] if average_top is None else contextual_target(states[-2:])
    expected = hidden_frame_regression(predicted, target, SPANS, VALID, distance="l1")
    assert_close(term(), expected, rtol=1e-9, atol=1e-12)


def test_a_narrower_sub_network_uses_the_front_of_the_head(supernet, teacher, audio):
    objective, inputs = LightHuBERTKD(), inputs_of(audio)
    _, term = watched(supernet, teacher, objective, inputs)
    supernet.shape = SPACE.smallest
    predicted = supernet(**inputs).last_hidden_state @ objective.head.weight[:, :8].T
    clean = {name: value for name, value in inputs.items() if name != "mask_time_indices"}
    expected = hidden_frame_regression(predicted, teacher(**clean).last_hidden_state, SPANS, VALID)
    loss = term()
    assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    loss.backward()
    assert objective.head.weight.grad[:, :8].any()
    assert not objective.head.weight.grad[:, 8:].any()


def test_a_plain_encoder_can_be_the_student(speech_net, teacher, audio):
    student = speech_net(apply_spec_augment=True).double()
    _, term = watched(student, teacher, LightHuBERTKD(), inputs_of(audio))
    assert term().isfinite()


def test_refuses_calls_without_spans_and_encoders_that_ignore_them(supernet, speech_net, teacher, audio):
    _, term = watched(supernet.eval(), teacher, LightHuBERTKD(), inputs_of(audio, mask_time_indices=None))
    with pytest.raises(SetupError, match="student called with `mask_time_indices` and a teacher without"):
        term()
    with pytest.raises(SetupError, match="would ignore hidden spans: make it with apply_spec_augment=True"):
        watched(speech_net().double(), teacher, LightHuBERTKD(), inputs_of(audio))
    with pytest.raises(SetupError, match="`average_top` must be at most the teacher's 3 layers, got 4"):
        watched(supernet, teacher, LightHuBERTKD(average_top=4), inputs_of(audio))
    with pytest.raises(ValueError, match="`average_top` must be a finite number above 0, got 0"):
        LightHuBERTKD(average_top=0)

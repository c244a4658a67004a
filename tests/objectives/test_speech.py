"""Claims about objectives over the frames of speech encoders, on real encoders with random weights."""

import pytest
import torch
from torch.testing import assert_close
from transformers import HubertConfig

from lightning_kd import Distiller, Progress, Tap
from lightning_kd.errors import LayoutError, SetupError, ShapeError
from lightning_kd.frames import lengths_before_zeros
from lightning_kd.losses import frame_l1, frame_mse, frame_regression, masked_span_mse
from lightning_kd.objectives import ARMHuBERTKD, DistilHuBERTKD, FitHuBERTKD, FrameKD
from lightning_kd.step import Step
from lightning_kd.students import ThinHubert, distilhubert_student
from lightning_kd.taps import Inputs, Observation
from lightning_kd.teachers import MaskedAndClean

LENGTHS = (6400, 3000)
LAYERS = "encoder.layers"


def distil(objective, student, teacher, audio, progress=None, **call):
    """One watched call; returns the term, the student's observation and the teacher's hidden states."""
    distiller = Distiller(student, teacher, [objective])
    inputs = {"input_values": audio, **call}
    distiller.build([inputs])
    with distiller.watch() as calls:
        distiller.student(**inputs)
    losses = distiller.losses(audio.new_zeros(()), calls, progress or Progress())
    losses.total.backward()
    distiller.detach()
    return losses.terms[objective.name].detach(), calls[0]


def hidden_states(model, audio, **call):
    with torch.no_grad():
        return model.eval()(audio, output_hidden_states=True, **call).hidden_states


@pytest.mark.parametrize("mask_padding", [True, False])
def test_distilhubert_predicts_layers_from_the_output(mask_padding, speech_net, audio):
    teacher, (padded, mask) = speech_net(), audio(*LENGTHS)
    student = distilhubert_student(teacher)
    objective = DistilHuBERTKD((0, 2, 3), cosine_weight=0.5, mask_padding=mask_padding)
    term, _ = distil(objective, student, teacher, padded, attention_mask=mask)
    targets = hidden_states(teacher, padded, attention_mask=mask)
    predictions = objective.heads(student(padded, attention_mask=mask).last_hidden_state)
    valid = teacher._get_feature_vector_attention_mask(19, mask) if mask_padding else None
    expected = [
        frame_regression(predictions[:, :, i], targets[layer], valid, cosine_weight=0.5)
        for i, layer in enumerate((0, 2, 3))
    ]
    assert_close(term, torch.stack(expected).mean().detach())


def test_the_heads_go_with_the_objective(speech_net, audio):
    teacher = speech_net()
    student = distilhubert_student(teacher)
    before = list(student.state_dict())
    objective = DistilHuBERTKD((1, 3))
    distil(objective, student, teacher, audio(*LENGTHS)[0])
    assert list(student.state_dict()) == before
    assert {name for name, _ in objective.named_parameters()} == {
        "heads.hidden.weight",
        "heads.hidden.bias",
        "heads.weight",
        "heads.bias",
    }


def test_lengths_of_zero_padded_audio_mask_without_an_attention_mask(speech_net, audio):
    teacher, (padded, mask) = speech_net(feat_extract_norm="group"), audio(*LENGTHS)
    student = distilhubert_student(teacher)
    place = Tap("encoder", select="last_hidden_state", lengths=lengths_before_zeros)
    objective = DistilHuBERTKD((3,), student=place)
    term, _ = distil(objective, student, teacher, padded)
    valid = teacher._get_feature_vector_attention_mask(19, mask)
    predictions = objective.heads(student(padded).last_hidden_state)[:, :, 0]
    assert_close(term, frame_regression(predictions, hidden_states(teacher, padded)[3], valid).detach())


def thin(**settings):
    config = HubertConfig(layerdrop=0.0, conv_dim=(8,) * 7, feat_extract_norm="layer", num_hidden_layers=3)
    config.update({"apply_spec_augment": False})
    config.update({"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, **settings})
    config.update({"hidden_dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0})
    config.update({"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2})
    return ThinHubert(config)


def test_fithubert_adds_a_tenth_of_the_lower_layers(speech_net, audio):
    # The oracle of the method sheet in its form: last + 0.1 * (sum of the lower ones), each over 18 of 19 frames.
    teacher, student, (padded, mask) = speech_net(), thin(time_reduction=2), audio(*LENGTHS)
    objective = FitHuBERTKD()
    term, call = distil(objective, student, teacher, padded, attention_mask=mask)
    targets = hidden_states(teacher, padded, attention_mask=mask)[1:]
    valid = student.frame_lengths(torch.tensor(LENGTHS)) * 2
    assert valid.tolist() == [18, 8]
    valid = torch.arange(18) < valid[:, None]
    each = [
        frame_mse(head(call.features[tap]), target[:, :18], valid)
        for head, tap, target in zip(objective.heads, objective.student_taps, targets, strict=True)
    ]
    assert_close(term, (each[2] + 0.1 * (each[0] + each[1])).detach())


def test_fithubert_has_the_published_value():
    # Terms 4 and 2 of the hints and 1 of the last layer: 1 + 0.1 * 6.
    class Given(FitHuBERTKD):
        def compare(self, index, student, teacher):
            return torch.tensor([4.0, 2.0, 1.0][index])

    objective = Given()
    objective.heads = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    assert objective(Observation(Inputs()), Observation(Inputs()), Step()).item() == pytest.approx(1.6)


def test_a_random_subset_of_hints_is_drawn_for_each_epoch(speech_net, audio):
    objective = FitHuBERTKD(random_layers=1)
    teacher, student, (padded, _) = speech_net(), thin(), audio(*LENGTHS)
    distil(objective, student, teacher, padded)
    drawn = [objective.hints_of(epoch) for epoch in range(20)]
    assert {tuple(hints) for hints in drawn} == {(0,), (1,)}
    assert drawn == [objective.hints_of(epoch) for epoch in range(20)]
    resting = ({0, 1} - set(objective.hints_of(0))).pop()
    gradients = [parameter.grad for parameter in objective.heads[resting].parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_masking_distillation_follows_the_clean_teacher_where_input_is_hidden(speech_net, audio):
    teacher, student, (padded, mask) = (
        speech_net(apply_spec_augment=True),
        thin(apply_spec_augment=True),
        audio(*LENGTHS),
    )
    spans = torch.zeros(2, 19, dtype=torch.bool)
    spans[0, 3:9] = spans[1, 2:4] = True
    objective = ARMHuBERTKD()
    call = {"attention_mask": mask, "mask_time_indices": spans}
    term, seen = distil(objective, student, MaskedAndClean(teacher), padded, **call)
    clean = hidden_states(teacher, padded, attention_mask=mask)[1:]
    masked = hidden_states(teacher, padded, **call)[1:]
    valid = teacher._get_feature_vector_attention_mask(19, mask)
    each = [
        masked_span_mse(head(seen.features[tap]), clean[i], masked[i], spans, valid)
        for i, (head, tap) in enumerate(zip(objective.heads, objective.student_taps, strict=True))
    ]
    assert_close(term, (each[2] + 0.1 * (each[0] + each[1])).detach())


def test_masking_distillation_needs_spans_and_networks_that_heed_them(speech_net, audio):
    teacher, (padded, _) = speech_net(apply_spec_augment=True), audio(*LENGTHS)
    with pytest.raises(SetupError, match="the student was called without mask_time_indices"):
        distil(ARMHuBERTKD(), thin(apply_spec_augment=True), MaskedAndClean(teacher), padded)
    with pytest.raises(SetupError, match="the teacher ignores mask_time_indices: set config"):
        distil(ARMHuBERTKD(), thin(apply_spec_augment=True), MaskedAndClean(speech_net()), padded)
    with pytest.raises(SetupError, match="the student ignores mask_time_indices"):
        distil(ARMHuBERTKD(), thin(), MaskedAndClean(teacher), padded)


def test_any_frames_are_compared_at_the_students_rate(speech_net, audio):
    teacher, student, (padded, _) = speech_net(hidden_size=24), speech_net(), audio(*LENGTHS)
    objective = FrameKD(f"{LAYERS}.0", f"{LAYERS}.2", distance="l1")
    term, call = distil(objective, student, teacher, padded)
    prediction = objective.adapters[0](call.features[Tap(f"{LAYERS}.0")])
    assert_close(term, frame_l1(prediction, hidden_states(teacher, padded)[3]).detach())


def test_frames_of_one_width_are_not_projected_unless_asked_for(speech_net, audio):
    padded, _ = audio(*LENGTHS)
    for projection, adapters in (("auto", 0), ("none", 0), ("always", 2)):
        objective = FrameKD(f"{LAYERS}.0", f"{LAYERS}.2", projection=projection)
        distil(objective, speech_net(), speech_net(), padded)
        assert len(list(objective.parameters())) == adapters
    objective = FrameKD(f"{LAYERS}.0", f"{LAYERS}.2", projection="none")
    with pytest.raises(ShapeError, match="needs equal widths, got student 16 and teacher 24"):
        distil(objective, speech_net(), speech_net(hidden_size=24), padded)


def test_a_place_that_gives_no_frames_raises(speech_net, audio):
    objective = FrameKD(Tap(LAYERS + ".0", axes="NLD"), LAYERS + ".0")
    with pytest.raises(LayoutError, match=r"must give frames \(N, T, D\), got shape \(2, 19, 16\), axes 'NLD'"):
        distil(objective, speech_net(), speech_net(), audio(*LENGTHS)[0])


@pytest.mark.parametrize("objective", [DistilHuBERTKD, FitHuBERTKD])
def test_a_teacher_with_layerdrop_left_on_is_refused(objective, speech_net, audio):
    teacher = speech_net(layerdrop=0.1)
    with pytest.raises(SetupError, match=r"the teacher has LayerDrop left on \(config\.layerdrop=0\.1\)"):
        distil(objective(layers=(1, 3)), speech_net(), teacher, audio(*LENGTHS)[0])


def test_a_student_with_layerdrop_has_no_layers_to_give_hints_to(speech_net, audio):
    with pytest.raises(SetupError, match="the student has LayerDrop left on"):
        distil(FitHuBERTKD(), speech_net(layerdrop=0.1), speech_net(), audio(*LENGTHS)[0])


def test_layers_must_be_there_and_fit(speech_net, audio):
    padded, _ = audio(*LENGTHS)
    with pytest.raises(SetupError, match="`layers` must be from 0 to 3, the depth of the teacher, got 4"):
        distil(DistilHuBERTKD(), speech_net(), speech_net(), padded)
    with pytest.raises(SetupError, match="the student has 2 layers and the teacher 3"):
        distil(FitHuBERTKD(), speech_net(num_hidden_layers=2), speech_net(), padded)
    distil(FitHuBERTKD(layers=(1, 2)), speech_net(num_hidden_layers=2), speech_net(), padded)


def test_options_are_checked():
    with pytest.raises(ValueError, match="`layers` must name at least one hidden state of the teacher, got none"):
        DistilHuBERTKD(())
    with pytest.raises(ValueError, match=r"`layers` must rise, the last one last, got \(3, 1\)"):
        FitHuBERTKD((3, 1))
    with pytest.raises(ValueError, match=r"`random_layers` must be a number of layers, or None for all, got -1"):
        FitHuBERTKD(random_layers=-1)
    with pytest.raises(ValueError, match="`reduction` must be one of 'frame', 'utterance', got 'sum'"):
        FrameKD("a", "b", reduction="sum")
    with pytest.raises(ValueError, match="`distance` must be one of 'mse', 'l1', 'cosine', got 'l2'"):
        FrameKD("a", "b", distance="l2")
    with pytest.raises(ValueError, match="`resampling` must be one of 'linear', 'pool', got 'nearest'"):
        FrameKD("a", "b", resampling="nearest")

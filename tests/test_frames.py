"""Claims about the masks that tell frames from padding."""

import pytest
import torch
from torch import nn

from lightning_kd.errors import ShapeError, TapError
from lightning_kd.frames import conv_lengths, lengths_before_zeros, lengths_to_mask, mask_at_rate
from lightning_kd.recorder import TapRecorder
from lightning_kd.taps import Inputs, Observation, Tap
from lightning_kd.teachers import FrozenTeacher

# WavLM of transformers 5.23 on torch 2.15.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask")

WAV2VEC2 = [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]
LENGTHS = (3200, 1999, 400)
FRAMES = [9, 5, 1]


def observed(model, *args, taps=(), **kwargs):
    recorder = TapRecorder(model, taps)
    with recorder.recording() as calls:
        model(*args, **kwargs)
    recorder.detach()
    return calls[0]


def test_the_published_lengths_come_out():
    samples = torch.tensor([400, 800, 8000, 16000, 32000, 250000, 480000])
    assert conv_lengths(samples, WAV2VEC2).tolist() == [1, 2, 24, 49, 99, 781, 1499]


def test_audio_below_the_receptive_field_makes_no_frame():
    assert conv_lengths(torch.tensor([399, 10, 0]), WAV2VEC2).tolist() == [0, 0, 0]


def test_lengths_are_those_of_real_convolutions():
    convolutions = nn.Sequential(*(nn.Conv1d(1, 1, kernel, stride) for kernel, stride in WAV2VEC2))
    for samples in (400, 719, 720, 1600, 1999):
        assert convolutions(torch.zeros(1, 1, samples)).shape[2] == conv_lengths(torch.tensor([samples]), WAV2VEC2)


def test_a_mask_is_true_for_the_first_frames():
    assert lengths_to_mask(torch.tensor([0, 2, 5]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2", "WavLM"])
def test_the_call_of_a_speech_model_says_which_frames_are_valid(name, speech_net, audio):
    model, (padded, mask) = speech_net(name), audio(*LENGTHS)
    for call in (observed(model, padded, mask), observed(model, padded, attention_mask=mask)):
        assert call.frame_mask(9).sum(dim=1).tolist() == FRAMES
        assert torch.equal(call.frame_mask(9), model._get_feature_vector_attention_mask(9, mask))


def test_the_mask_is_found_through_a_model_around_the_encoder_and_for_its_logits(speech_net, audio):
    model, (padded, mask) = speech_net(kind="ForCTC", vocab_size=5), audio(*LENGTHS)
    call = observed(model, padded, attention_mask=mask)
    assert call.frame_mask(call.output.logits.shape[1]).sum(dim=1).tolist() == FRAMES


def test_a_teacher_says_it_too_with_and_without_taps(speech_net, audio):
    teacher, (padded, mask) = FrozenTeacher(speech_net()), audio(*LENGTHS)
    inputs = Inputs((padded,), {"attention_mask": mask})
    assert teacher.observe(inputs).frame_mask(9).sum(dim=1).tolist() == FRAMES
    teacher.tap([Tap("encoder", select="last_hidden_state")])
    assert teacher.observe(inputs).frame_mask(9).sum(dim=1).tolist() == FRAMES


def test_a_call_without_lengths_masks_nothing(speech_net, audio):
    padded, _ = audio(*LENGTHS)
    assert observed(speech_net(), padded).frame_mask(9) is None


class Strided(nn.Module):
    """Frames of four steps, whose call names its lengths in its own way."""

    def forward(self, features, sizes=None):
        return features[:, ::4]


@pytest.mark.parametrize("place", [1, "sizes", lambda inputs: inputs.args[1]])
def test_a_tap_names_where_the_lengths_are(place):
    tap = Tap("", lengths=place)
    call = observed(Strided(), torch.zeros(3, 12, 2), torch.tensor([12, 5, 4]), taps=[tap])
    assert call.frame_mask(3, tap).sum(dim=1).tolist() == [3, 2, 1]


def test_a_function_may_return_the_mask_of_the_frames():
    mask = torch.tensor([[True, False, True]])
    tap = Tap("", lengths=lambda inputs: mask)
    assert torch.equal(observed(Strided(), torch.zeros(1, 9, 2), taps=[tap]).frame_mask(3, tap), mask)


def test_lengths_that_are_named_but_not_given_raise():
    tap = Tap("", lengths="sizes")
    call = observed(Strided(), torch.zeros(1, 12, 2), taps=[tap])
    with pytest.raises(TapError, match="`lengths='sizes'` must name lengths or a mask in the call, got None"):
        call.frame_mask(3, tap)


def test_lengths_of_another_kind_are_no_place():
    with pytest.raises(
        TypeError, match=r"`lengths` must be the position or name of an argument or a function, got 1\.5"
    ):
        Tap("", lengths=1.5)


def test_the_end_of_zero_padded_audio_is_found(audio):
    padded, _ = audio(*LENGTHS)
    assert lengths_before_zeros(Inputs((padded,))).tolist() == list(LENGTHS)
    assert lengths_before_zeros(Inputs((torch.zeros(1, 5),))).tolist() == [0]


def test_a_model_that_counts_its_frames_is_believed_first(speech_net, audio):
    model, (padded, mask) = speech_net(), audio(*LENGTHS)
    model.frame_lengths = lambda samples: samples // 1600
    call = observed(model, padded, attention_mask=mask)
    assert call.frame_mask(2).sum(dim=1).tolist() == [2, 1, 0]
    assert call.frame_mask(9).sum(dim=1).tolist() == FRAMES


def test_whole_ratios_count_a_frame_that_is_partly_valid():
    assert mask_at_rate(torch.tensor([8, 5, 4, 0]), 2, steps=8).sum(dim=1).tolist() == [2, 2, 1, 0]


def test_what_cannot_be_told_raises_with_what_could():
    with pytest.raises(
        TapError, match="the feature has 5 frames, and of the padded input of 12 steps only 12 could be"
    ):
        mask_at_rate(torch.ones(1, 12), 5)
    with pytest.raises(TapError, match="the steps of the padded input are not known"):
        mask_at_rate(torch.tensor([3]), 5)
    with pytest.raises(
        ShapeError, match=r"`lengths` must have shape \(N,\), or be a mask \(N, steps\), got \(1, 2, 3\)"
    ):
        mask_at_rate(torch.ones(1, 2, 3), 5)


def test_an_observation_of_no_known_model_uses_the_ratio_alone():
    call = Observation(Inputs((torch.zeros(1, 6),), {"attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0]])}))
    assert call.frame_mask(3).tolist() == [[True, True, False]]

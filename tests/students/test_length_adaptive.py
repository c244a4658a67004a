"""Claims about encoders whose layers drop frames and put them back."""

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.students import LengthAdaptiveEncoder, set_lengths, with_length_adaptation
from lightning_kd.students.length_adaptive import most_different

KEEP = (0.8, 0.5, 0.5)


@pytest.fixture(params=[("Hubert", False), ("Hubert", True), ("Wav2Vec2", False)], ids=str)
def pair(request, speech_net):
    name, stable = request.param
    plain = speech_net(name, do_stable_layer_norm=stable).double().eval()
    return plain, with_length_adaptation(plain).eval()


def test_computes_the_same_until_it_drops_frames(pair, audio):
    plain, adaptive = pair
    samples, mask = audio(4000, 2500, dtype=torch.float64)
    for inputs in ({}, {"attention_mask": mask}):
        expected = plain(samples, **inputs).last_hidden_state
        valid = slice(None) if not inputs else (1, slice(0, 7))
        assert_close(adaptive(samples, **inputs).last_hidden_state[valid], expected[valid], rtol=1e-9, atol=1e-11)
    assert list(adaptive.state_dict()) == list(plain.state_dict())


def test_layers_see_fewer_frames_and_all_come_back(pair, audio):
    plain, adaptive = pair
    samples, _ = audio(4000, dtype=torch.float64)  # 12 frames
    set_lengths(adaptive, KEEP)
    seen = []
    for layer in adaptive.encoder.layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    assert adaptive(samples).last_hidden_state.shape == plain(samples).last_hidden_state.shape
    assert seen == [12, 10, 6]


def test_a_dropped_frame_keeps_the_value_it_was_dropped_with(speech_net, audio):
    adaptive = with_length_adaptation(speech_net()).eval()
    set_lengths(adaptive, (0.5, 0.5, 0.5))
    samples, _ = audio(4000)
    states = []
    adaptive.encoder.layers[0].register_forward_hook(lambda *args: states.append(args[2]))
    output = adaptive(samples).last_hidden_state
    chosen, _ = most_different(states[0], None, 6)
    dropped = sorted(set(range(12)) - set(chosen[0].tolist()))
    assert torch.equal(output[0, dropped], states[0][0, dropped])
    assert not torch.isclose(output[0, chosen[0]], states[0][0, chosen[0]]).all(dim=-1).any()


def test_a_padded_batch_gives_what_its_utterances_give_one_by_one(pair, audio):
    _, adaptive = pair
    set_lengths(adaptive, KEEP)
    lengths = (4000, 2500, 900)
    samples, mask = audio(*lengths, dtype=torch.float64)
    together = adaptive(samples, attention_mask=mask).last_hidden_state
    for row, (length, frames) in enumerate(zip(lengths, (12, 7, 2), strict=True)):
        alone = adaptive(samples[row : row + 1, :length]).last_hidden_state
        assert_close(together[row, :frames], alone[0], rtol=1e-9, atol=1e-11)


def test_the_frames_that_differ_most_go_on_in_order():
    angles = torch.tensor([[0.0, 0.1, 1.1, 1.2, 1.25, 3.0]])
    states = torch.stack([angles.cos(), angles.sin()], dim=-1)
    assert most_different(states, None, 3)[0].tolist() == [[0, 2, 5]]
    valid = torch.tensor([[True, True, True, True, False, False]])
    chosen, remaining = most_different(states, valid, torch.tensor([2]))
    assert (chosen.tolist(), remaining.tolist()) == ([[0, 2]], [[True, True]])


def test_lengths_are_drawn_within_the_allowed_drop(speech_net):
    encoder = with_length_adaptation(speech_net(), drop=0.3).encoder
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        encoder.draw(generator)
        assert all(
            0.7 * before <= after <= before for before, after in zip((1.0, *encoder.keep), encoder.keep, strict=False)
        )
    encoder.restore()
    assert encoder.keep == (1.0, 1.0, 1.0)


def test_gradients_reach_every_layer_while_frames_are_dropped(speech_net, audio):
    adaptive = with_length_adaptation(speech_net())
    set_lengths(adaptive, KEEP)
    adaptive(audio(4000)[0]).last_hidden_state.square().sum().backward()
    assert all(layer.attention.q_proj.weight.grad.any() for layer in adaptive.encoder.layers)


def test_refuses_what_does_not_fit(speech_net, audio):
    adaptive = with_length_adaptation(speech_net())
    for keep in ((1.0, 1.0), (0.5, 0.8, 0.5), (1.0, 0.5, 0.0), (1.2, 1.0, 1.0)):
        with pytest.raises(ValueError, match=r"3 shares above 0, at most 1 and not increasing, got \("):
            set_lengths(adaptive, keep)
    with pytest.raises(SetupError, match=r"made by with_length_adaptation\(\), got HubertModel"):
        set_lengths(speech_net(), KEEP)
    with pytest.raises(ValueError, match=r"`drop` must be in \[0, 1\), got 1\.0"):
        with_length_adaptation(speech_net(), drop=1.0)
    with pytest.raises(SetupError, match=r"`layerdrop` of the model must be 0, got 0\.1"):
        with_length_adaptation(speech_net(layerdrop=0.1))
    set_lengths(adaptive, KEEP, fixed_frames=12)
    with pytest.raises(SetupError, match=r"`fixed_frames` is 12: .* got 4 frames"):
        adaptive(audio(1600)[0])
    assert isinstance(adaptive.encoder, LengthAdaptiveEncoder)

"""Claims about batches of audio and about audio that is refused."""

import numpy as np
import pytest
import torch

from lightning_kd.errors import AudioError
from lightning_kd.speech import CropToShortest, PadAudio

LONG, SHORT = torch.linspace(-1, 1, 900), torch.linspace(0, 1, 500)


def test_pads_with_zeros_and_says_so():
    batch = PadAudio(sample_rate=16000)([LONG, SHORT])
    assert batch.keys() == {"input_values", "attention_mask"}
    assert torch.equal(batch["input_values"][0], LONG)
    assert torch.equal(batch["input_values"][1], torch.cat([SHORT, torch.zeros(400)]))
    assert batch["attention_mask"].dtype == torch.int64
    assert torch.equal(batch["attention_mask"][1], torch.cat([torch.ones(500), torch.zeros(400)]).long())


def test_the_mask_can_be_left_out():
    assert PadAudio(sample_rate=16000, return_attention_mask=False)([LONG]).keys() == {"input_values"}


def test_the_mask_is_what_a_speech_model_wants(speech_net):
    batch = PadAudio(sample_rate=16000)([LONG, SHORT])
    assert speech_net()(**batch).last_hidden_state.shape[:2] == (2, 2)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.double()])
def test_a_waveform_may_be_of_any_kind(wrap):
    values = PadAudio(sample_rate=8000)([wrap(LONG)])["input_values"]
    assert values.dtype == torch.float32
    assert torch.allclose(values[0], LONG)


def test_items_may_be_pairs_or_mappings_with_labels_of_any_lengths():
    collate = PadAudio(sample_rate=8000)
    assert collate([(LONG, 3), (SHORT, 4)])["labels"].tolist() == [3, 4]
    items = [
        {"audio": {"array": LONG.numpy(), "sampling_rate": 8000}, "text": "a", "ids": [1, 2]},
        {"audio": {"array": SHORT.numpy(), "sampling_rate": 8000}, "text": "b", "ids": [3]},
    ]
    batch = collate(items)
    assert batch["text"] == ["a", "b"]
    assert batch["ids"] == [[1, 2], [3]]


def test_standardising_makes_mean_0_and_variance_1_of_each_alone():
    values = PadAudio(sample_rate=8000, standardize=True)([3 * LONG + 1, SHORT])["input_values"]
    for wave in (values[0], values[1, :500]):
        assert wave.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert wave.var(correction=0).item() == pytest.approx(1.0, abs=1e-3)


def test_crops_to_the_shortest_anywhere():
    collate = CropToShortest(sample_rate=8000, min_samples=400)
    starts = set()
    for _ in range(20):
        batch = collate([(LONG, 0), (SHORT, 1)])
        crop = batch["input_values"][0]
        start = int((crop[0] == LONG).nonzero())
        starts.add(start)
        assert torch.equal(crop, LONG[start : start + 500])
        assert torch.equal(batch["input_values"][1], SHORT)
    assert len(starts) > 10
    assert batch.keys() == {"input_values", "labels"}


def test_no_crop_is_longer_than_allowed():
    collate = CropToShortest(sample_rate=8000, min_samples=400, max_samples=450)
    assert collate([LONG, SHORT])["input_values"].shape == (2, 450)


@pytest.mark.parametrize("collate", [PadAudio(sample_rate=16000), CropToShortest(sample_rate=16000, min_samples=400)])
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(399), r"`audio\[1\]` must have at least 400 samples, got 399: pad it, or leave it out"),
        (
            torch.tensor([float("nan")] * 2 + [0.0] * 500),
            r"`audio\[1\]` must be finite, got 2 samples that are NaN or inf",
        ),
        (torch.tensor([float("inf")] + [0.0] * 500), r"`audio\[1\]` must be finite, got 1 samples"),
        ({"array": np.zeros(800), "sampling_rate": 8000}, r"must have 16000 samples per second, got 8000: resample"),
        (torch.zeros(2, 800), r"`audio\[1\]` must be one channel .* got torch\.float32 of shape \(2, 800\)"),
        (torch.zeros(800, dtype=torch.int16), r"must be one channel of floating-point samples.*got torch\.int16"),
    ],
)
def test_bad_audio_is_named_with_its_place_and_cure(collate, audio, message):
    with pytest.raises(AudioError, match=message):
        collate([{"audio": LONG}, {"audio": audio}])


def test_the_rate_may_stand_beside_the_waveform():
    with pytest.raises(AudioError, match="must have 16000 samples per second, got 44100"):
        PadAudio(sample_rate=16000)([{"audio": LONG, "sampling_rate": 44100}])


def test_batches_and_items_without_audio_raise():
    collate = PadAudio(sample_rate=16000)
    with pytest.raises(AudioError, match="at least one item, got none"):
        collate([])
    with pytest.raises(AudioError, match=r"waveform as 'audio', got the keys \['speech'\]"):
        collate([{"speech": LONG}])


def test_numbers_that_make_no_sense_raise():
    with pytest.raises(ValueError, match="`sample_rate` must be above 0, got 0"):
        PadAudio(sample_rate=0)
    with pytest.raises(ValueError, match="`max_samples` must be at least 32000, got 100"):
        CropToShortest(sample_rate=16000, max_samples=100)

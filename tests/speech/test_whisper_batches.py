"""Claims about batches for Whisper: shifted labels, timestamps, what was said before."""

import numpy as np
import pytest
import torch

from lightning_kd.errors import TranscriptError
from lightning_kd.speech.whisper_batches import WhisperCollator, WhisperTokens

TOKENS = WhisperTokens(prefix=(50, 51, 52), no_timestamps=57, previous=55, first_timestamp=60, end=59)
TIMED = [60, 7, 8, 64]


def collator(**options):
    return WhisperCollator(tokens=TOKENS, **{"timestamps": 0.0, "previous": 0.0, **options})


def utterance(tokens=TIMED, **more):
    return {"input_features": torch.zeros(2, 8), "tokens": tokens, **more}


def rows(batch):
    return batch["decoder_input_ids"].tolist(), batch["labels"].tolist()


def test_labels_are_the_inputs_one_token_on():
    assert rows(collator()([utterance()])) == ([[50, 51, 52, 57, 7, 8]], [[51, 52, 57, 7, 8, 59]])


def test_timestamps_stay_with_their_probability():
    assert rows(collator(timestamps=1.0)([utterance()])) == ([[50, 51, 52, 60, 7, 8, 64]], [[51, 52, 60, 7, 8, 64, 59]])
    without = utterance([7, 8])
    assert rows(collator(timestamps=1.0)([without])) == rows(collator(timestamps=0.0)([without]))
    batch = collator(timestamps=0.25)([utterance()] * 400)
    timed = (batch["decoder_input_ids"] == 60).any(dim=1).float().mean()
    assert timed == pytest.approx(0.25, abs=0.08)


def test_what_was_said_before_is_in_front_and_counts_in_no_loss():
    batch = collator(previous=1.0)([utterance(previous=[60, 1, 2, 61])])
    assert rows(batch) == (
        [[55, 1, 2, 50, 51, 52, 57, 7, 8]],
        # The labels up to the start of transcript (50) do not count.
        [[-100, -100, -100, 51, 52, 57, 7, 8, 59]],
    )
    assert rows(collator(previous=1.0)([utterance()])) == rows(collator()([utterance()]))


def test_padding_counts_in_no_loss():
    inputs, labels = rows(collator()([utterance(), utterance([7])]))
    assert inputs[1] == [50, 51, 52, 57, 7, 59]
    assert labels[1] == [51, 52, 57, 7, 59, -100]


def test_what_was_said_before_is_cut_to_half_of_the_positions_and_to_the_room():
    before = list(range(20))
    half = collator(previous=1.0, positions=12)([utterance([7], previous=before)])
    assert half["decoder_input_ids"].tolist() == [[55, 15, 16, 17, 18, 19, 50, 51, 52, 57, 7]]
    room = collator(previous=1.0, positions=9)([utterance([7, 8, 9], previous=before)])
    assert room["decoder_input_ids"].tolist() == [[55, 19, 50, 51, 52, 57, 7, 8, 9]]
    full = collator(previous=1.0, positions=7)([utterance([7, 8, 9], previous=before)])
    assert full["decoder_input_ids"].tolist() == [[50, 51, 52, 57, 7, 8, 9]]


def test_empty_and_endless_transcripts_are_refused():
    with pytest.raises(TranscriptError, match="`tokens` must hold a transcript, got an empty one"):
        collator()([utterance([60, 64])])
    with pytest.raises(TranscriptError, match=r"must fit into 6 positions, got 7"):
        collator(positions=6)([utterance([7, 8, 9])])
    with pytest.raises(ValueError, match=r"`timestamps` must be .* got 2"):
        collator(timestamps=2)


def test_special_tokens_come_from_the_tokenizer(whisper_parts):
    index = whisper_parts.index
    tokens = WhisperTokens.of(whisper_parts.tokenizer, language="en", task="transcribe")
    assert tokens.prefix == (index["<|startoftranscript|>"], index["<|en|>"], index["<|transcribe|>"])
    assert tokens.first_timestamp == whisper_parts.tokenizer.convert_tokens_to_ids("<|0.00|>")
    assert (tokens.end, tokens.previous) == (index["<|endoftext|>"], index["<|startofprev|>"])
    with pytest.raises(TranscriptError, match=r"must have the token '<\|de\|>', got one of \d+ tokens without it"):
        WhisperTokens.of(whisper_parts.tokenizer, language="de", task="transcribe")


def test_audio_goes_through_the_teachers_front_end_and_the_batch_into_the_model(whisper_parts):
    tokens = WhisperTokens.of(whisper_parts.tokenizer, language="en", task="transcribe")
    extractor = whisper_parts.processor.feature_extractor
    collate = WhisperCollator(tokens=tokens, extractor=extractor, positions=24)
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    batch = collate([{"audio": samples, "tokens": [7, 8]}, {"audio": samples[:4000], "tokens": [9]}])
    expected = extractor(samples, sampling_rate=16000, return_tensors="np").input_features[0]
    np.testing.assert_array_equal(batch["input_features"][0].numpy(), expected)
    assert whisper_parts.make()(**batch).loss.isfinite()
    with pytest.raises(TranscriptError, match=r"`extractor` must be given for utterances with \"audio\", got None"):
        collator()([{"audio": samples, "tokens": [7]}])

"""Claims about transcripts as text."""

import pytest

from lightning_kd.errors import TranscriptError
from lightning_kd.speech.text import (
    ErrorRate,
    character_errors,
    compression_ratio,
    is_shouted,
    repeated_share,
    whisper_normalizer,
    word_errors,
)


def test_word_errors_are_the_sheets():
    found = word_errors(["the cat sat"], ["the cat sat down"])
    assert found == ErrorRate(1, 3)
    assert found.percent == pytest.approx(100 / 3)


def test_errors_of_several_transcripts_are_counted_together():
    # One substitution; two deletions; right: 3 of 6 words.
    found = word_errors(["a b", "c d", "e f"], ["a x", "", "e f"])
    assert found == ErrorRate(3, 6)
    assert word_errors(["a"], ["b c d"]).rate == 3.0  # more edits than words


def test_character_errors_count_spaces():
    assert character_errors(["ab c"], ["abc"]) == ErrorRate(1, 4)


def test_errors_against_nothing_are_refused():
    with pytest.raises(TranscriptError, match=r"got 1 empty ones, the first at index 1"):
        word_errors(["a", " "], ["a", "b"])
    with pytest.raises(TranscriptError, match=r"as many as references, 1, got 2"):
        character_errors(["a"], ["a", "b"])


def test_english_is_normalised_as_whisper_is_scored():
    normalize = whisper_normalizer("English", spelling={"colour": "color"})
    assert normalize("Um, the COLOUR isn't [noise] twenty-one!") == "the color is not 21"
    assert whisper_normalizer("en")("colour") == "colour"


def test_other_languages_keep_their_words():
    assert whisper_normalizer("hi")("Déjà [noise] VU!") == "déjà vu"
    assert whisper_normalizer(None)("isn't") == "isn t"


def test_signs_of_invention():
    assert compression_ratio("") == 0.0
    assert compression_ratio("so so so so so so so so so so so so so so so") > 2.4
    assert repeated_share("a b a b a b", words=2) == 1.0
    assert repeated_share("a b c d e", words=5) == 0.0
    assert repeated_share("a b c d e f a b c d e", words=5) == pytest.approx(2 / 7)
    assert [is_shouted(text) for text in ("GO 1", "Go", "1", "")] == [True, False, False, False]
    with pytest.raises(ValueError, match=r"`words` must be .* got 0"):
        repeated_share("a", words=0)

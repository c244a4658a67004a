"""Claims about which pseudo-labels are kept."""

import math

import numpy as np
import pytest

from lightning_kd.errors import TranscriptError
from lightning_kd.speech.filters import (
    MaxWordErrorRate,
    NotMadeUp,
    ScoreLimit,
    apply_filters,
    confidence,
    entropy,
    nll,
    no_shouting,
    no_silence,
    proxy,
    score_with,
)
from lightning_kd.speech.pseudo_labels import PseudoLabel
from lightning_kd.speech.text import whisper_normalizer


def label(text="the cat sat down", reference="the cat sat", tokens=(1, 2, 3), seconds=2.0, id="a", **scores):
    return PseudoLabel(
        id=id, audio="a.wav", seconds=seconds, text=text, tokens=tokens, scores=scores, reference=reference
    )


@pytest.mark.parametrize(("percent", "reason"), [(10, "word error rate"), (20, "word error rate"), (34, None)])
def test_the_word_error_rate_decides_as_in_the_sheet(percent, reason):
    assert MaxWordErrorRate(percent)(label()) == reason


def test_a_rate_equal_to_the_limit_is_dropped():
    assert MaxWordErrorRate(25)(label("a b c x", "a b c d")) == "word error rate"
    assert MaxWordErrorRate(25.01)(label("a b c x", "a b c d")) is None


def test_texts_are_normalised_before_they_are_compared():
    rule = MaxWordErrorRate(10, whisper_normalizer("en"))
    assert rule(label("The cat's sat!", "the cat is sat")) is None
    assert rule(label("so", "[noise]")) == "empty reference"
    assert rule(label("[noise]", "so")) == "empty"


def test_a_reference_is_needed():
    with pytest.raises(TranscriptError, match=r"`reference` of pseudo-label 'a' must be its transcript, got None"):
        MaxWordErrorRate()(label(reference=None))


def test_reasons_are_counted():
    labels = [label(id="a"), label("SO SO", id="b"), label("", id="c"), label("the cat sat", id="d")]
    found = apply_filters(labels, [no_silence, no_shouting, MaxWordErrorRate(10)])
    assert [kept.id for kept in found.kept] == ["d"]
    assert found.dropped == {"word error rate": 1, "upper case": 1, "empty": 1}


def test_what_cannot_have_been_said_is_dropped():
    rule = NotMadeUp()
    assert rule(label()) is None
    assert rule(label("no " * 40)) == "compression ratio"
    assert rule(label(tokens=tuple(range(25)))) == "tokens per second"
    assert rule(label(" ".join(2 * ["the big red dog ran over that hill"]))) == "repeated words"


@pytest.mark.parametrize(("score", "name"), [(confidence, "confidence"), (entropy, "entropy"), (nll, "nll")])
def test_scores_are_read_from_the_pseudo_label(score, name):
    assert score(label(**{name: 0.25})) == 0.25
    with pytest.raises(TranscriptError, match=rf"pseudo-label 'a' has no score '{name}', got \['other'\]"):
        score(label(other=1.0))


def test_limits_keep_the_good_side():
    low, high = ScoreLimit(entropy, 1.0), ScoreLimit(confidence, 0.5, "high", "not confident")
    assert [low(label(entropy=value)) for value in (0.5, 1.0, 1.5)] == [None, None, "score"]
    assert [high(label(confidence=value)) for value in (0.4, 0.5)] == ["not confident", None]


def test_a_fraction_of_the_pool_is_kept():
    pool = [label(id=str(index), entropy=float(index), confidence=1 / (1 + index)) for index in range(10)]
    best = ScoreLimit.keeping(0.3, pool, entropy)
    assert [kept.id for kept in apply_filters(pool, [best]).kept] == ["0", "1", "2"]
    sure = ScoreLimit.keeping(0.8, pool, confidence, better="high")
    assert len(apply_filters(pool, [sure]).kept) == 8
    assert len(apply_filters(pool, [ScoreLimit.keeping(0.0, pool, entropy)]).kept) == 1
    with pytest.raises(TranscriptError, match=r"got \[\]"):
        ScoreLimit.keeping(0.5, [], entropy)
    with pytest.raises(TranscriptError, match=r"scores that are numbers, got \[nan\]"):
        ScoreLimit.keeping(0.5, [label(entropy=math.nan)], entropy)


def test_a_second_recogniser_stands_in_for_references():
    second = proxy([label("the cat sat", id="a"), label("", id="b")])
    assert second(label(id="a")) == pytest.approx(1 / 3)
    assert second(label("so", id="b")) == math.inf
    assert ScoreLimit(second, 0.8)(label("so", id="b")) == "score"
    with pytest.raises(TranscriptError, match="got none with the id 'z'"):
        second(label(id="z"))


def test_scores_of_your_own_can_be_added():
    scored = score_with(
        [label(entropy=1.0)], "pesq", lambda audio, text: len(audio) + len(text), audio=lambda _: np.zeros(3)
    )
    assert scored[0].scores == {"entropy": 1.0, "pesq": 3 + len("the cat sat down")}
    with pytest.raises(TranscriptError, match="finite number, got nan for pseudo-label 'a'"):
        score_with([label()], "sonar", lambda *_: math.nan, audio=lambda _: np.zeros(3))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`percent` must be .* got 0"):
        MaxWordErrorRate(0)
    with pytest.raises(ValueError, match=r"`better` must be one of 'low', 'high', got 'most'"):
        ScoreLimit(entropy, 1.0, "most")
    with pytest.raises(ValueError, match=r"`max_compression` must be .* got -1"):
        NotMadeUp(max_compression=-1)
    with pytest.raises(ValueError, match=r"`fraction` must be .* got 2"):
        ScoreLimit.keeping(2, [label()], entropy)

"""Claims about label-free scores."""

import math

import pytest
import torch

from lightning_kd.errors import ShapeError, TranscriptError
from lightning_kd.speech.scores import embedding_similarity, proxy_error, token_scores
from lightning_kd.speech.text import whisper_normalizer

DISTRIBUTIONS = torch.tensor([[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.8, 0.1, 0.1]], dtype=torch.float64)


def test_scores_are_the_sheets():
    found = token_scores(DISTRIBUTIONS.log(), torch.zeros(3, dtype=torch.long))
    assert found.nll == pytest.approx(0.340550416, abs=1e-9)
    assert found.confidence == pytest.approx(0.733333333, abs=1e-9)
    assert found.likelihood == pytest.approx(0.711378661, abs=1e-9)
    assert found.entropy == pytest.approx(0.687694188, abs=1e-9)
    assert found.entropy / math.log(3) == pytest.approx(0.625966, abs=1e-6)
    assert embedding_similarity([1.0, 2.0, 2.0], [2.0, 1.0, 2.0]) == pytest.approx(0.888889, abs=1e-6)


def test_confidence_is_of_the_best_token_and_likelihood_of_the_one_written():
    found = token_scores(DISTRIBUTIONS.log(), torch.tensor([1, 0, 0]))
    assert found.confidence == pytest.approx(0.733333333, abs=1e-9)
    assert found.nll == pytest.approx(-(math.log(0.05) + math.log(0.5) + math.log(0.8)) / 3)


def test_suppressed_tokens_have_no_entropy():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert token_scores(logits, torch.tensor([0])).entropy == pytest.approx(math.log(2))


def test_a_proxy_is_a_word_error_rate():
    assert proxy_error("the cat sat down", "the cat sat") == pytest.approx(1 / 3)
    assert proxy_error("It's", "it is", normalizer=whisper_normalizer("en")) == 0.0
    assert proxy_error("", "") == 0.0
    assert proxy_error("so", "") == math.inf


def test_refuses_what_does_not_fit():
    with pytest.raises(TranscriptError, match="got an empty transcript"):
        token_scores(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(1,\)"):
        token_scores(torch.zeros(2, 3), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ShapeError, match=r"got \(1,\) and \(2,\)"):
        embedding_similarity([1.0], [1.0, 2.0])

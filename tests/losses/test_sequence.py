"""Claims about the losses of whole transcripts; references enumerate paths or call PyTorch's own mean."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd.decoding import Hypothesis, collapse
from lightning_kd.errors import ShapeError
from lightning_kd.losses import CTCHypotheses, ctc_hypotheses, ctc_negative_log_likelihood

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def enumerated(logits, transcript, blank):
    probabilities = logits.softmax(-1)
    paths = itertools.product(range(logits.shape[1]), repeat=logits.shape[0])
    total = sum(
        math.prod(float(probabilities[frame, label]) for frame, label in enumerate(path))
        for path in paths
        if collapse(path, blank=blank) == tuple(transcript)
    )
    return -math.log(total)


@pytest.mark.parametrize("transcript", [[], [1], [1, 2], [1, 1], [2, 1, 2]])
def test_likelihood_is_that_of_all_paths(transcript):
    logits = torch.randn(1, 4, 3, dtype=torch.float64)
    found = ctc_negative_log_likelihood(logits, [transcript], blank=0)
    assert found.item() == pytest.approx(enumerated(logits[0], transcript, 0), rel=1e-9)


def test_padding_is_not_part_of_an_utterance():
    logits = torch.randn(2, 6, 3, dtype=torch.float64)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    together = ctc_negative_log_likelihood(logits, [[1, 2], [1]], mask, blank=0)
    alone = ctc_negative_log_likelihood(logits[1:, :3], [[1]], blank=0)
    assert_close(together[1:], alone, **EXACT)


def test_a_transcript_that_does_not_fit_counts_nothing():
    logits = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    loss = ctc_negative_log_likelihood(logits, [[1, 1]], blank=0)  # needs a blank between: 3 frames
    loss.sum().backward()
    assert loss.item() == 0.0
    assert_close(logits.grad, torch.zeros_like(logits))


def test_one_hypothesis_gives_the_mean_of_pytorch():
    logits = torch.randn(3, 7, 5, dtype=torch.float64)
    transcripts = [(1, 2), (3,), (4, 4, 1)]
    found = ctc_hypotheses(logits, [[Hypothesis(labels)] for labels in transcripts], blank=0)
    flat = torch.tensor([label for labels in transcripts for label in labels])
    expected = F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1), flat, torch.tensor([7, 7, 7]), torch.tensor([2, 1, 3]), reduction="mean"
    )
    assert_close(found, expected, **EXACT)


def test_hypotheses_weigh_as_the_teacher_says():
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    nll = ctc_negative_log_likelihood(logits[[0, 0, 1]], [[1], [1, 2], [2]], blank=0)
    hypotheses = [[Hypothesis((1,), math.log(0.3)), Hypothesis((1, 2), math.log(0.1))], [Hypothesis((2,), -5.0)]]
    # Renormalised over what there is: 0.3 and 0.1 are 3/4 and 1/4.
    found = ctc_hypotheses(logits, hypotheses, blank=0, per_label=False)
    assert_close(found, (0.75 * nll[0] + 0.25 * nll[1] + nll[2]) / 2, rtol=1e-6, atol=0.0)
    per_label = ctc_hypotheses(logits, hypotheses, blank=0)
    assert_close(per_label, (0.75 * nll[0] + 0.25 * nll[1] / 2 + nll[2]) / 2, rtol=1e-6, atol=0.0)
    relative = ctc_hypotheses(logits, hypotheses, blank=0, per_label=False, relative=True)
    assert_close(relative, ((0.75 * nll[0] + 0.25 * nll[1]) / (nll[0] + nll[1]) + 1) / 2, rtol=1e-6, atol=0.0)


def test_the_module_computes_the_function():
    logits, hypotheses = torch.randn(1, 5, 3), [[Hypothesis((1,)), Hypothesis((2,))]]
    module = CTCHypotheses(blank=0, per_label=False)
    assert_close(module(logits, hypotheses), ctc_hypotheses(logits, hypotheses, blank=0, per_label=False))
    assert repr(module) == "CTCHypotheses(blank=0, per_label=False, relative=False)"


def test_refuses_transcripts_that_cannot_be():
    logits = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"without the blank, 0, got \[0, 3\]"):
        ctc_negative_log_likelihood(logits, [[0], [3]], blank=0)
    with pytest.raises(ShapeError, match=r"one per utterance, 2, got 1"):
        ctc_negative_log_likelihood(logits, [[1]], blank=0)
    with pytest.raises(ShapeError, match=r"at least one transcript per utterance, got \[1, 0\]"):
        ctc_hypotheses(logits, [[Hypothesis((1,))], []], blank=0)
    with pytest.raises(ShapeError, match=r"a list per utterance, 2, got 1"):
        ctc_hypotheses(logits, [[Hypothesis((1,))]], blank=0)

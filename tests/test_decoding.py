"""Claims about the decoding of CTC networks; the reference enumerates every path."""

import itertools
import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_kd.decoding import Hypothesis, beam_search, collapse, greedy_search, log_add
from lightning_kd.errors import ShapeError


def every_transcript(logits, blank):
    """Probability of each transcript, summed over all V ** T paths."""
    probabilities = logits.double().softmax(-1)
    totals = defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        weight = math.prod(float(probabilities[frame, label]) for frame, label in enumerate(path))
        totals[collapse(path, blank=blank)] += weight
    return totals


def test_collapse_merges_repeats_and_drops_blanks():
    assert collapse([1, 1, 0, 1, 2, 2], blank=0) == (1, 1, 2)
    assert collapse([], blank=0) == ()


@given(st.integers(0, 10_000), st.integers(0, 2))
def test_a_search_with_room_for_everything_finds_every_transcript_with_its_probability(seed, blank):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    expected = every_transcript(logits, blank)
    found = beam_search(logits, blank=blank, beams=1000, hypotheses=1000, classes=None)
    assert {h.labels: math.exp(h.log_probability) for h in found} == pytest.approx(expected, rel=1e-9)
    assert [h.log_probability for h in found] == sorted((h.log_probability for h in found), reverse=True)


def test_the_search_beats_the_best_path_where_alignments_add_up():
    # Two frames of (0.6, 0.4): the best path is "0 0" with 0.36; transcripts are "0" with 0.84 and "" with 0.16.
    frame = torch.tensor([0.4, 0.6]).log()
    logits = torch.stack([frame, frame])
    assert greedy_search(logits[None], blank=1) == [Hypothesis((), pytest.approx(math.log(0.36), rel=1e-6))]
    assert beam_search(logits, blank=1)[0] == Hypothesis((0,), pytest.approx(math.log(0.64), rel=1e-6))


def test_returns_as_many_hypotheses_as_asked_for():
    found = beam_search(torch.randn(6, 5), blank=0, hypotheses=3)
    assert len(found) == 3
    assert len({h.labels for h in found}) == 3


def test_greedy_search_ends_where_the_utterance_does():
    logits = 50 * torch.nn.functional.one_hot(torch.tensor([[1, 0, 2, 1], [2, 2, 1, 1]]), 3).float()
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    assert [h.labels for h in greedy_search(logits, mask, blank=0)] == [(1, 2, 1), (2,)]
    assert [h.labels for h in greedy_search(logits, blank=0)] == [(1, 2, 1), (2, 1)]


def test_log_add_adds():
    assert log_add(math.log(0.25), math.log(0.5)) == pytest.approx(math.log(0.75))
    assert log_add(-math.inf, -math.inf) == -math.inf


def test_refuses_a_blank_that_is_no_class():
    with pytest.raises(ShapeError, match=r"`blank` must be one of the 3 classes, from 0 on, got 3"):
        greedy_search(torch.zeros(1, 2, 3), blank=3)
    with pytest.raises(ShapeError, match=r"must have shape \(N, T, V\), got \(2, 3\)"):
        greedy_search(torch.zeros(2, 3), blank=0)
    with pytest.raises(ValueError, match="`beams` must be a finite number above 0, got 0"):
        beam_search(torch.zeros(2, 3), blank=0, beams=0)

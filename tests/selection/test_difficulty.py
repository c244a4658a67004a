"""Claims about how hard samples are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.selection import difficulty
from lightning_kd.selection.difficulty import MEASURES

# Probabilities 1/2, 1/4, 1/4 and 9/10, 1/10, 0.
LOGITS = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0]], dtype=torch.float64).log()
LABELS = torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("margin", [1 - 0.25, 1 - 0.8]),
        ("confidence", [0.5, 0.1]),
        # 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2, and a class of probability 0 adds nothing.
        ("entropy", [1.5 * np.log(2), -0.9 * np.log(0.9) - 0.1 * np.log(0.1)]),
        ("loss", [np.log(4), -np.log(0.9)]),
        # (1/2, -3/4, 1/4) and (-1/10, 1/10, 0).
        ("el2n", [np.sqrt(0.25 + 0.5625 + 0.0625), np.sqrt(0.02)]),
    ],
)
def test_measures_have_the_values_of_their_definitions(measure, expected):
    assert_close(difficulty(LOGITS, LABELS, measure=measure), torch.tensor(expected, dtype=torch.float64))


@given(st.integers(0, 1000), st.sampled_from(MEASURES), st.floats(-50, 50))
def test_adding_a_constant_to_the_scores_changes_nothing(seed, measure, constant):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (5,), generator=generator)
    values = difficulty(logits, labels, measure=measure)
    assert_close(difficulty(logits + constant, labels, measure=measure), values, rtol=1e-9, atol=1e-9)
    assert bool((values >= 0).all())


def test_a_sure_and_right_network_finds_a_sample_easy_and_an_unsure_one_hard():
    sure, unsure = torch.tensor([[100.0, 0.0, 0.0]]), torch.zeros(1, 3)
    for measure in MEASURES:
        easy, hard = (difficulty(logits, torch.tensor([0]), measure=measure) for logits in (sure, unsure))
        assert_close(easy, torch.zeros(1), rtol=0, atol=1e-6)
        assert float(hard) > 0.5


def test_halves_are_promoted_and_no_gradient_is_left():
    values = difficulty(torch.randn(2, 3, dtype=torch.float16, requires_grad=True))
    assert values.dtype == torch.float32
    assert not values.requires_grad


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(SetupError, match="`measure='loss'` compares with labels, got none"):
        difficulty(LOGITS, measure="loss")
    with pytest.raises(ShapeError, match=r"at least 2 classes, got \(2, 1\)"):
        difficulty(LOGITS[:, :1])
    with pytest.raises(ShapeError, match=r"`labels` must have shape \(2,\), got \(3,\)"):
        difficulty(LOGITS, torch.zeros(3), measure="el2n")
    with pytest.raises(ValueError, match=r"`measure` must be one of .* got 'variance'"):
        difficulty(LOGITS, measure="variance")

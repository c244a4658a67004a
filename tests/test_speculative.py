"""Claims about how well a student drafts; references sample or count."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from lightning_kd.errors import ShapeError
from lightning_kd.speculative import DraftQuality, acceptance_rates, draft_quality, expected_tokens, residual

P, Q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def test_the_rates_are_the_sheets():
    assert acceptance_rates(Q.log(), P.log()).item() == pytest.approx(0.7, abs=1e-12)
    assert_close(residual(Q, P), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert expected_tokens(0.7, 4) == pytest.approx(2.7731, abs=1e-12)
    assert expected_tokens(1.0, 4) == 5.0
    assert expected_tokens(0.0, 4) == 1.0


@given(st.integers(0, 1000))
def test_accepting_and_drawing_anew_gives_the_teachers_distribution(seed):
    generator = torch.Generator().manual_seed(seed)
    q, p = torch.randn(2, 6, generator=generator, dtype=torch.float64).softmax(-1)
    accepted = torch.minimum(p, q)
    rejected = 1 - acceptance_rates(q.log(), p.log())
    assert_close(accepted + rejected * residual(q, p), p)


def test_the_residual_of_equal_distributions_is_the_teachers():
    assert_close(residual(P, P), P)


def test_the_quality_is_over_the_tokens_that_count():
    student = torch.stack([Q, P, Q]).log()[None]
    teacher = torch.stack([P, P, P]).log()[None]
    found = draft_quality(student, teacher, torch.tensor([[True, True, False]]))
    assert found.acceptance == pytest.approx(0.85)
    assert found.agreement == pytest.approx(0.5)
    assert found.tokens == 2
    assert found.tokens_per_pass(4) == pytest.approx(expected_tokens(0.85, 4))
    assert found.tokens_per_pass(4, greedy=True) == pytest.approx(expected_tokens(0.5, 4))
    assert draft_quality(student, teacher, torch.zeros(1, 3, dtype=torch.bool)) == DraftQuality(0.0, 0.0, 0)


def test_qualities_add_up_by_their_tokens():
    total = DraftQuality(0.5, 1.0, 1) + DraftQuality(0.8, 0.0, 2) + DraftQuality(0.0, 0.0, 0)
    assert total.acceptance == pytest.approx(0.7)
    assert total.agreement == pytest.approx(1 / 3)
    assert total.tokens == 3


def test_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"\(3,\) and \(2,\)"):
        acceptance_rates(Q, P[:2])
    with pytest.raises(ValueError, match=r"`acceptance` must be .* got 1\.5"):
        expected_tokens(1.5, 4)
    with pytest.raises(ValueError, match=r"`drafted` must be .* got 0"):
        expected_tokens(0.5, 0)

"""Claims about DISTKD beyond those of test_logits.py; across ranks: tests/test_distributed.py."""

import pytest
import torch

from lightning_kd.objectives import DISTKD
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation


@pytest.mark.parametrize("rows", [1, 2])
def test_a_batch_too_small_to_correlate_gives_a_zero_that_keeps_the_graph(rows):
    student = torch.randn(rows, 5, requires_grad=True)
    term = DISTKD()(Observation(Inputs(), student), Observation(Inputs(), torch.randn(rows, 5)), Step())
    term.backward()
    assert term.item() == 0.0
    assert student.grad.eq(0).all()


def test_the_published_weight_is_two():
    assert DISTKD().weight == 2.0


def test_refuses_options_out_of_range():
    with pytest.raises(ValueError, match=r"`temperature` must be .* got -1\.0"):
        DISTKD(temperature=-1.0)
    with pytest.raises(ValueError, match=r"`inter` must be .* got -1\.0"):
        DISTKD(inter=-1.0)
    with pytest.raises(ValueError, match=r"`intra` must be .* got -1\.0"):
        DISTKD(intra=-1.0)

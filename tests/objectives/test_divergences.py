"""Claims about the objectives of other divergences beyond those of test_logits.py."""

import pytest
import torch

from lightning_kd.objectives import SkewKLKD
from lightning_kd.step import Step
from lightning_kd.taps import Inputs, Observation


def test_reverse_exchanges_the_roles_of_the_distributions():
    a, b = (Observation(Inputs(), logits) for logits in torch.randn(2, 6, 5))
    assert SkewKLKD(skew=0.3, reverse=True)(a, b, Step()) == SkewKLKD(skew=0.3)(b, a, Step())


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_refuses_a_share_that_mixes_nothing(skew):
    with pytest.raises(ValueError, match=rf"`skew` must be above 0 and below 1, got {skew}"):
        SkewKLKD(skew=skew)

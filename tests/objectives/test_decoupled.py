"""Claims about DKD and NKD beyond those of test_logits.py."""

import pytest

from lightning_kd.objectives import DKD, NKD
from lightning_kd.schedules import Progress, weight_at


@pytest.mark.parametrize("epoch", [0, 1, 9, 18, 19, 20, 239])
def test_dkd_warms_up_over_twenty_epochs_counted_from_one(epoch):
    assert weight_at(DKD().weight, Progress(epoch=epoch)) == pytest.approx(min((epoch + 1) / 20, 1.0), rel=1e-12)


def test_refuse_options_out_of_range():
    with pytest.raises(ValueError, match=r"`beta` must be a finite number of at least 0, got -1\.0"):
        DKD(beta=-1.0)
    with pytest.raises(ValueError, match=r"`alpha` must be .* got nan"):
        DKD(alpha=float("nan"))
    with pytest.raises(ValueError, match=r"`temperature` must be .* got 0"):
        NKD(temperature=0)
    with pytest.raises(ValueError, match=r"`gamma` must be .* got -2"):
        NKD(gamma=-2)

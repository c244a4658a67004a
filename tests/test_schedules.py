"""Weights that change while training."""

import pytest

from lightning_kd.schedules import Progress, Ramp, Steps, weight_at


def test_schedules_follow_steps_and_epochs():
    ramp = Ramp(1.0, 0.0, over=10, unit="step", begin=5, shape="cosine")
    assert [ramp(Progress(step=step)) for step in (0, 5, 10, 15, 99)] == pytest.approx([1, 1, 0.5, 0, 0])
    steps = Steps({0: 1.0, 3: 0.5, 5: 0.0}, unit="epoch")
    assert [steps(Progress(epoch=epoch)) for epoch in range(6)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.0]
    assert weight_at(2, Progress()) == 2.0
    assert weight_at(lambda progress: progress.step / 4, Progress(step=1)) == 0.25


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ramp(-1.0, 1.0, over=1), r"`start` must be a finite number of at least 0.*got -1\.0"),
        (lambda: Ramp(0.0, 1.0, over=1, unit="batch"), "`unit` must be one of 'step', 'epoch', got 'batch'"),
        (lambda: Ramp(0.0, 1.0, over=1, shape="exp"), "`shape` must be one of 'linear', 'cosine', got 'exp'"),
        (lambda: Steps({1: 1.0}), r"`values` must give the weight from 0 on, got moments \[1\]"),
        (lambda: Steps({0: float("inf")}), r"`values\[0\]` must be a finite number"),
        (lambda: weight_at(lambda progress: float("nan"), Progress()), "`weight` must be a finite number.*got nan"),
    ],
)
def test_schedules_check_their_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()

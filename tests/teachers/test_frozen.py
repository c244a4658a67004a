"""The frozen teacher stays as it is, stops where nothing more is read, and may normalise by the batch."""

import pytest
import timm
import torch
from torch import nn

from lightning_kd import FrozenTeacher, Tap
from lightning_kd.taps import Inputs


class Counting(nn.Module):
    """Layers that count how often they run."""

    def __init__(self):
        super().__init__()
        self.runs = []
        self.early, self.late = nn.Linear(4, 4), nn.Linear(4, 4)
        for name in ("early", "late"):
            getattr(self, name).register_forward_hook(lambda *_, name=name: self.runs.append(name))

    def forward(self, x, *, twice=False):
        x = self.early(x)
        x = self.early(x) if twice else x
        return self.late(x)


def test_a_stopped_teacher_reads_the_same_taps_as_one_that_ran_on():
    teacher = FrozenTeacher(timm.create_model("test_vit", img_size=64))
    taps = [Tap("blocks.0"), Tap("blocks.1", at="input")]
    teacher.tap(taps)
    images = Inputs.of(torch.randn(2, 3, 64, 64))
    stopped, whole = teacher.observe(images, stop=True), teacher.observe(images)
    assert stopped.output is None
    assert whole.output is not None
    for tap in taps:
        assert torch.equal(stopped.features[tap], whole.features[tap])


def test_a_stopped_teacher_runs_no_later_layer():
    net = Counting()
    teacher = FrozenTeacher(net)
    teacher.tap([Tap("early")])
    teacher.observe(Inputs.of(torch.zeros(1, 4)), stop=True)
    assert net.runs == ["early"]


@pytest.mark.parametrize(("call", "runs"), [(0, 1), (1, 2)])
def test_a_stopped_teacher_waits_for_the_chosen_call(call, runs):
    net = Counting()
    teacher = FrozenTeacher(net)
    teacher.tap([Tap("early", call=call)])
    teacher.observe(Inputs((torch.zeros(1, 4),), {"twice": True}), stop=True)
    assert net.runs == ["early"] * runs


def test_only_the_taps_asked_for_are_read():
    teacher = FrozenTeacher(Counting())
    teacher.tap([Tap("early"), Tap("late")])
    seen = teacher.observe(Inputs.of(torch.zeros(1, 4)), taps=[Tap("late")])
    assert list(seen.features) == [Tap("late")]


def test_a_compiled_teacher_runs_to_its_end():
    net = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), backend="eager")
    teacher = FrozenTeacher(net)
    teacher.tap([Tap("0")])
    assert teacher.observe(Inputs.of(torch.zeros(1, 4)), stop=True).features[Tap("0")].shape == (1, 4)


def test_batch_statistics_normalise_the_batch_and_leave_the_teacher_unchanged():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9))
    teacher = FrozenTeacher(net, batch_statistics=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(64, 3) * 5 + 2
    for _ in range(2):
        teacher.train()
        y = teacher(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(FrozenTeacher(nn.BatchNorm1d(3))(x), x, atol=1e-3, rtol=1e-4)

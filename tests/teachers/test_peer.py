"""A peer shows its own training calls, without gradients and without running twice."""

import torch
from torch import nn

from lightning_kd import Tap
from lightning_kd.step import Step
from lightning_kd.taps import Inputs
from lightning_kd.teachers import PeerTeacher


def peer():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_calls_that_were_heard_are_shown_in_order_and_cut_from_the_graph():
    net = peer()
    teacher = PeerTeacher(net)
    teacher.tap([Tap("0")])
    inputs = [torch.randn(5, 3), torch.randn(5, 3)]
    with teacher.listening():
        outputs = [net(x) for x in inputs]
    runs = net[1].num_batches_tracked.item()
    for x, output in zip(inputs, outputs, strict=True):
        seen = teacher.observe(Inputs.of(x), step=Step())
        assert torch.equal(seen.output, output)
        assert torch.equal(seen.features[Tap("0")], net[0](x))
        assert not seen.output.requires_grad
        assert not seen.features[Tap("0")].requires_grad
    assert net[1].num_batches_tracked.item() == runs == 2


def test_without_a_call_it_runs_as_it_is_by_then():
    net = peer()
    teacher = PeerTeacher(net)
    x = torch.randn(5, 3)
    before = teacher.observe(Inputs.of(x), step=Step()).output
    nn.init.zeros_(net[2].weight)
    after = teacher.observe(Inputs.of(x), step=Step()).output
    assert not torch.equal(before, after)
    assert torch.equal(after, net[2].bias.expand(5, 2))
    assert not after.requires_grad


def test_outside_of_training_nothing_about_it_changes():
    net = peer()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    PeerTeacher(net).observe(Inputs.of(torch.randn(5, 3)))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_no_hook_stays():
    net = peer()
    teacher = PeerTeacher(net)
    teacher.observe(Inputs.of(torch.randn(5, 3)))
    teacher.untap()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

"""Claims about adaptive computation modules and the networks that hold them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_kd.errors import SetupError
from lightning_kd.students import (
    AdaptiveComputation,
    adaptive_modules,
    adaptive_parameters,
    fix_learners,
    with_adaptive_computation,
)
from lightning_kd.students.adaptive import LearnerChoice


@pytest.fixture
def module():
    return AdaptiveComputation(6, 5, hidden=4, learners=3).double()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_sums_are_those_of_the_first_learners(module):
    x = torch.randn(2, 7, 6).double()
    sums = module.cumulative(x)
    assert not sums[0].any()
    for count in range(1, 4):
        assert_close(sums[count], sum(learner(x) for learner in module.learners[:count]))


def test_each_frame_gets_the_sum_that_its_gate_chooses(module):
    module.eval()
    x = torch.randn(2, 7, 6).double()
    counts = module.gate(x).argmax(dim=-1)
    sums = torch.stack(module.cumulative(x))
    expected = sums.gather(0, counts[None, ..., None].expand(1, 2, 7, 5))[0]
    assert len(counts.unique()) > 1
    assert_close(module(x), expected)


def test_training_computes_with_what_was_drawn_and_teaches_the_gate(module):
    x, drawn = torch.randn(2, 7, 6).double(), []
    module.choice.register_forward_hook(lambda *args: drawn.append(args[2]))
    output = module(x)
    counts = drawn[0].argmax(dim=-1)
    assert_close(drawn[0].detach().sum(dim=-1), torch.ones(2, 7).double())
    sums = torch.stack(module.cumulative(x))
    assert_close(output, sums.gather(0, counts[None, ..., None].expand(1, 2, 7, 5))[0])
    output.sum().backward()
    assert module.gate[0].weight.grad.any()
    assert not torch.equal(module(x), output)  # drawn anew


def test_learners_run_on_the_frames_that_take_them_only(module):
    module.eval()
    x = torch.randn(2, 7, 6).double()
    counts, rows = module.gate(x).argmax(dim=-1), []
    for learner in module.learners:
        learner.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    module(x)
    assert rows == [int((counts > index).sum()) for index in range(3)]


def test_a_fixed_number_asks_no_gate(module):
    x = torch.randn(2, 7, 6).double()
    module.gate.register_forward_hook(lambda *_: pytest.fail("the gate ran"))
    for count in range(4):
        module.fixed = count
        assert_close(module(x), module.cumulative(x)[count])


def test_detached_sums_teach_only_the_learner_that_completes_them(module):
    module.cumulative(torch.randn(1, 2, 6).double(), detach=True)[3].sum().backward()
    assert module.learners[0][0].weight.grad is None
    assert module.learners[2][0].weight.grad.any()


def test_the_least_number_is_kept():
    choice = LearnerChoice(least=1)
    logits = torch.tensor([[9.0, 0.0, 1.0]]).expand(50, 3)
    for mode in (True, False):
        choice.train(mode)
        assert not choice(logits)[:, 0].any()
    assert choice(logits)[:, 2].all()


@pytest.mark.parametrize("name", ["Hubert", "Wav2Vec2"])
@pytest.mark.parametrize("places", [("feed_forward",), ("attention",), ("feed_forward", "attention")])
def test_modules_stand_in_every_layer_and_cost_what_they_replace(speech_net, audio, name, places):
    plain = speech_net(name, intermediate_size=32).eval()
    student = with_adaptive_computation(plain, learners=4, places=places)
    per_layer = ("feed_forward" in places) + 4 * ("attention" in places)
    modules = adaptive_modules(student)
    assert len(modules) == 3 * per_layer
    if places == ("feed_forward",):
        assert next(iter(modules)) == "encoder.layers.0.feed_forward"
        costs = {4 * module.cost for module in modules.values()}
        assert costs == {2 * 16 * 32}
    if places == ("attention",):
        # round((16 * 16 + 16) / 33 / 4) = 2 units of 32 weights in each of 4 learners, for 256 weights.
        assert {4 * module.cost for module in modules.values()} == {256}
    samples, mask = audio(1600, 900)
    fix_learners(student, 2)
    assert student(samples, attention_mask=mask).last_hidden_state.shape == (2, 4, 16)
    assert not any(isinstance(module, AdaptiveComputation) for module in plain.modules())


def test_phases_train_disjoint_parameters(speech_net):
    student = with_adaptive_computation(speech_net())
    learners, gates = (adaptive_parameters(student, part) for part in ("learners", "gate"))
    assert len(learners) == 3 * 4 * 4
    assert len(gates) == 3 * 6
    assert not {id(p) for p in learners} & {id(p) for p in gates}


def test_refuses_what_does_not_fit(speech_net, module):
    student = with_adaptive_computation(speech_net(), places=("feed_forward", "attention"))
    with pytest.raises(ValueError, match=r"must be from 1 to 4 at 'encoder\.layers\.0\.attention\.k_proj', got 0"):
        fix_learners(student, 0)
    with pytest.raises(ValueError, match=r"`count` must be from 0 to 3 at '', got 4"):
        fix_learners(module, 4)
    assert module.fixed is None
    with pytest.raises(SetupError, match=r"\(Linear\) holds no AdaptiveComputation"):
        adaptive_modules(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="`places` must be one of 'feed_forward', 'attention', got 'norm'"):
        with_adaptive_computation(speech_net(), places=["norm"])
    with pytest.raises(SetupError, match="`places` must name some of feed_forward, attention, got none"):
        with_adaptive_computation(speech_net(), places=[])
    with pytest.raises(ValueError, match="`hidden` must be a finite number above 0, got 0"):
        with_adaptive_computation(speech_net(), learners=100)
    with pytest.raises(ValueError, match="`part` must be one of 'learners', 'gate', got 'all'"):
        adaptive_parameters(student, "all")

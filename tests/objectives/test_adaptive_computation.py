"""Claims about the three phases of adaptive computation modules."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_kd import Distiller
from lightning_kd.errors import SetupError
from lightning_kd.losses import (
    budget_loss,
    computation_share,
    cumulative_mse,
    gate_diversity_loss,
    gate_entropy_loss,
    useful_learners,
)
from lightning_kd.objectives import ACMBudget, ACMGateKD, ACMModuleKD
from lightning_kd.students import adaptive_modules, with_adaptive_computation

VALID = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])


@pytest.fixture
def teacher(speech_net):
    return speech_net(num_hidden_layers=2).double().eval()


@pytest.fixture
def student(teacher):
    return with_adaptive_computation(teacher, learners=3)


@pytest.fixture
def inputs(audio):
    samples, mask = audio(2000, 900, dtype=torch.float64)
    return {"input_values": samples, "attention_mask": mask}


def term_of(student, teacher, objective, inputs):
    distiller = Distiller(student, teacher, [objective], allow=("frozen",))
    with distiller.watch() as calls:
        student(**inputs)
    return distiller.losses(torch.zeros(()), calls).terms[objective.name], calls


def activations(teacher, inputs):
    """What the feed-forward networks of the teacher get and give."""
    seen = []
    hooks = [
        layer.feed_forward.register_forward_hook(lambda *args: seen.append((args[1][0], args[2])))
        for layer in teacher.encoder.layers
    ]
    with torch.no_grad():
        teacher(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_learners_imitate_the_replaced_module_on_its_own_inputs(student, teacher, inputs):
    term, _ = term_of(student, teacher, ACMModuleKD(), inputs)
    modules = adaptive_modules(student).values()
    pairs = zip(modules, activations(teacher, inputs), strict=True)
    expected = torch.stack([cumulative_mse(module.cumulative(x), y, VALID) for module, (x, y) in pairs]).mean()
    assert_close(term, expected, rtol=1e-9, atol=1e-12)
    term.backward()
    assert all(module.learners[2][0].weight.grad.any() for module in modules)
    learnt = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt
    assert all(".learners." in name for name in learnt)


def test_gates_learn_the_useful_number(student, teacher, inputs):
    term, _ = term_of(student, teacher, ACMGateKD(ratio=1.01), inputs)
    expected = []
    for module, (x, y) in zip(adaptive_modules(student).values(), activations(teacher, inputs), strict=True):
        errors = torch.stack([(h - y).square().sum(-1).sqrt() for h in module.cumulative(x)])
        labels = useful_learners(errors, ratio=1.01)
        expected.append(F.cross_entropy(module.gate(x)[VALID], labels[VALID]))
    assert_close(term, torch.stack(expected).mean(), rtol=1e-9, atol=1e-12)
    term.backward()
    learnt = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt
    assert all(".gate." in name for name in learnt)


def test_the_budget_reads_what_was_drawn(student, inputs):
    objective = ACMBudget(target=0.25)
    term, calls = term_of(student, None, objective, inputs)
    choices = [calls[0].features[tap] for tap in objective.student_taps]
    expected = (
        0.1 * budget_loss(computation_share(choices, [1.0, 1.0], VALID), 0.25)
        + 0.05 * gate_entropy_loss(choices, VALID)
        + 0.05 * gate_diversity_loss(choices, VALID)
    )
    assert_close(term, expected)
    term.backward()
    gradients = [module.gate[0].weight.grad for module in adaptive_modules(student).values()]
    assert all(g.any() and g.isfinite().all() for g in gradients)


def test_refuses_networks_without_modules_and_another_teacher(student, teacher, inputs, speech_net):
    with pytest.raises(SetupError, match="holds no AdaptiveComputation"):
        term_of(speech_net().double(), teacher, ACMModuleKD(), inputs)
    shallow = speech_net(num_hidden_layers=1).double()
    with pytest.raises(SetupError, match=r"network that was replaced .* no \['encoder\.layers\.1\.feed_forward'\]"):
        term_of(student, shallow, ACMGateKD(), inputs)
    with pytest.raises(ValueError, match=r"`target` must be a number from 0 to 1, got 1\.5"):
        ACMBudget(target=1.5)
    with pytest.raises(ValueError, match="`entropy_weight` must be a finite number of at least 0, got -1"):
        ACMBudget(entropy_weight=-1)
    with pytest.raises(ValueError, match="`ratio` must be a finite number above 0, got -1"):
        ACMGateKD(ratio=-1)

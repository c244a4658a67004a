"""Recipes that compress: published values, and three real steps of distillation alone."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import Distiller, QuantizationAwareTraining, recipes
from lightning_kd.compression import LearnedLevels, UniformWeights, layer_importance, layer_weights, two_four_layers
from lightning_kd.errors import SetupError

ZS, ZT, Y = [[2.0, 0.5, -1.0], [0.0, 1.0, 0.3]], [[3.0, 0.0, -1.0], [0.5, 2.0, -0.5]], [0, 1]


class Saying(nn.Module):
    """Returns its weights, whatever it is asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, x):
        return self.logits * 1


@pytest.mark.parametrize(
    # 0.3 of the cross-entropy and 0.7 of the divergence at temperature 2, divided by 3 classes or not.
    ("class_mean", "total"),
    [(True, 0.1800331921), (False, 0.3 * 0.4321426543 + 0.7 * 0.2159588393)],
)
def test_quantized_distillation_has_the_published_loss(class_mean, total):
    kd, _ = recipes.quantized_distillation(Saying(ZT), UniformWeights(), class_mean=class_mean)
    student = Saying(ZS)
    distiller = Distiller(student, kd.teacher, kd.objectives, task_weight=kd.task_weight)
    with distiller.watch() as calls:
        task = F.cross_entropy(student(torch.zeros(2)), torch.tensor(Y))
    assert float(distiller.losses(task, calls).total.detach()) == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize(("student", "teacher"), [("test_resnet", "test_vit"), ("test_vit", "test_resnet")])
@pytest.mark.parametrize("make", [partial(UniformWeights, stochastic=True), LearnedLevels], ids=["uniform", "learned"])
def test_quantized_students_learn(make, student, teacher, net, fit_three_steps):
    network, quantizer = net(student), make(levels=4)
    keys = list(network.state_dict())
    kd, low_bit = recipes.quantized_distillation(net(teacher), quantizer, path="net")
    module, metrics = fit_three_steps(network, [kd, low_bit])
    learnt = "_low_bit_quantizer.positions" if isinstance(quantizer, LearnedLevels) else "net."
    assert any(name.startswith(learnt) for name in module.gradients)
    assert "kd/logit" in metrics
    assert list(network.state_dict()) == keys
    for weight in layer_weights(network).values():
        # Each bucket of 256 has 4 levels.
        assert len(weight.parameter.detach().unique()) <= 4 * -(-weight.parameter.numel() // 256)


def ternary(teacher, step):
    skip = ["patch_embed", "head"]
    return recipes.teacher_intervention(teacher, path="net", step=step, skip=skip)


def test_a_ternary_student_learns_with_its_teachers_attention_and_then_alone(net, fit_three_steps):
    teacher = net("test_vit", depth=2)
    student = copy.deepcopy(teacher)
    callbacks = ternary(teacher, step=1)
    callbacks[2].on_train_batch_end = lambda *_: seen.append(callbacks[2]._interventions.signal)
    seen = []
    _, metrics = fit_three_steps(student, callbacks)
    # Of 3 steps, a sixth is over after the first and a third as well.
    assert seen == ["output", "map", "map"]
    assert {"kd/insides", "kd/logit"} <= metrics.keys()
    fit_three_steps(student, ternary(teacher, step=2))
    assert list(student.state_dict()) == list(teacher.state_dict())
    for name, weight in layer_weights(student, skip=["patch_embed", "head"]).items():
        assert all(len(row.abs().unique()) <= 2 for row in weight.parameter.detach()), name
    for network in (student, teacher):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_step_must_be_one_of_two():
    with pytest.raises(ValueError, match=r"`step` must be one of 1, 2, got 3"):
        recipes.teacher_intervention(nn.Linear(2, 2), step=3)


def test_sparse_distillation_weighs_stages_by_what_pruning_takes(net, fit_three_steps):
    student, teacher = net("test_resnet"), net("test_resnet")
    callbacks = recipes.sparse_distillation(teacher, student, path="net", weights=(0.5, 2.0, 3.0), skip=["fc"])
    kd = callbacks[0]
    assert kd.task_weight == 0.5
    logit, *stages = kd.objectives
    assert (logit.temperature, logit.weight) == (4.0, 2.0)
    importances = layer_importance(student, [f"layer{index}" for index in (1, 2, 3, 4)])
    assert [stage.weight for stage in stages] == pytest.approx([3.0 * importance for importance in importances])
    _, metrics = fit_three_steps(student, callbacks)
    terms = sum(stage.weight * metrics[f"kd/{stage.name}"] for stage in stages)
    assert metrics["kd/total"] == pytest.approx(0.5 * metrics["kd/task"] + 2.0 * metrics["kd/logit"] + terms, rel=1e-5)
    sparse = two_four_layers(student)
    assert [name for name, is_sparse in sparse.items() if not is_sparse] == [*callbacks[1].dense, "fc.weight"]
    assert list(student.state_dict()) == list(net("test_resnet").state_dict())


def test_sparse_distillation_across_architectures_and_of_unknown_families(net, fit_three_steps):
    student = net("test_vit")
    callbacks = recipes.sparse_distillation(net("test_resnet"), student, path="net", normalization="layer")
    fit_three_steps(student, callbacks)
    assert callbacks[1].dense == ("patch_embed.proj.weight",)
    assert sum(two_four_layers(student).values()) == len(two_four_layers(student)) - 1
    with pytest.warns(UserWarning, match=r"the family of the student \(Sequential\) is not known"):
        kd, _ = recipes.sparse_distillation(net("test_resnet"), nn.Sequential(nn.Linear(4, 4)))
    assert kd.objectives[1].matching is not None


def test_zeros_survive_training_with_rounded_weights(net, fit_three_steps):
    teacher = net("test_resnet")
    student = copy.deepcopy(teacher)
    fit_three_steps(student, recipes.sparse_distillation(teacher, student, path="net"))
    zeros = {name: weight.parameter.eq(0) for name, weight in layer_weights(student).items()}
    rounded = QuantizationAwareTraining(student="net", example_inputs=(torch.randn(2, 3, 64, 64),))
    callbacks = recipes.sparse_distillation(teacher, student, path="net", quantization=rounded)
    assert callbacks[2] is rounded
    assert len({stage.weight for stage in callbacks[0].objectives[1:]}) == 1
    fit_three_steps(student, callbacks)
    for name, weight in layer_weights(student).items():
        if name not in callbacks[1].dense:
            assert torch.equal(weight.parameter.eq(0), zeros[name]), name


def test_three_weights_are_asked_for(net):
    with pytest.raises(SetupError, match="`weights` must be those of task, class scores and features, got 2"):
        recipes.sparse_distillation(net("test_vit"), net("test_vit"), weights=(1.0, 1.0))

"""Recipes that compress: published values, and three real steps of distillation alone."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import Distiller, recipes
from lightning_kd.compression import LearnedLevels, UniformWeights, layer_weights

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

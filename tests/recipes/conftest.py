"""Three real steps in which nothing but a recipe's terms teaches the student."""

from functools import partial

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import TensorDataset

SAMPLES, PIXELS = 4, 64


class Learner(L.LightningModule):
    """Its own loss has no gradient, so that whatever learns, learns from distillation."""

    def __init__(self, net, loss):
        super().__init__()
        self.net, self.loss = net, loss
        self.gradients = set()

    def training_step(self, batch, batch_idx):
        return self.loss(self.net, batch, self.current_epoch).detach()

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.01)

    def on_after_backward(self):
        self.gradients |= {n for n, p in self.named_parameters() if p.grad is not None and bool(p.grad.ne(0).any())}


def classify(net, batch, epoch):
    """Cross-entropy of the first output: networks with several heads have more in training."""
    output = net(batch[0])
    return F.cross_entropy(output if isinstance(output, Tensor) else next(iter(output)), batch[1])


@pytest.fixture
def learn_alone(distil_three_steps):
    """Distil without a task, one batch per epoch, so that three steps see the first three epochs of a schedule."""

    def learn(student, callbacks, *, loss=classify, dataset=None, **options):
        if dataset is None:
            dataset = TensorDataset(torch.randn(SAMPLES, 3, PIXELS, PIXELS), torch.arange(SAMPLES))
        module = partial(Learner, loss=loss)
        return distil_three_steps(student, callbacks, module=module, dataset=dataset, batch_size=SAMPLES, **options)

    return learn

"""The callback trains exactly as a LightningModule with the same distillation written out by hand."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_kd import FeatureKD, KnowledgeDistillation, LogitKD

TEMPERATURE = 4.0


def by_hand(classifier, teacher, projection):
    """The same training in plain Lightning: teacher kept outside, adapter appended to the optimiser."""

    class ByHand(classifier):
        def __init__(self, net):
            super().__init__(net)
            self.projection = projection
            self.outside = [teacher]

        def training_step(self, batch, batch_idx):
            x, y = batch
            feature = self.net.body(x)
            logits = self.net.head(feature.mean((2, 3)))
            with torch.no_grad():
                teacher_logits, tokens = self.teach(x)
            log_q = F.log_softmax(logits.float() / TEMPERATURE, dim=-1)
            log_p = F.log_softmax(teacher_logits.float() / TEMPERATURE, dim=-1)
            kl = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean") * TEMPERATURE**2
            target = tokens[:, 1:].transpose(1, 2).reshape(len(x), -1, 4, 4)
            mse = F.mse_loss(self.projection(feature).float(), target.float())
            return 0.1 * F.cross_entropy(logits, y) + 0.9 * kl + 0.5 * mse

        def teach(self, x):
            seen = []
            handle = teacher.block.register_forward_hook(lambda *a: seen.append(a[2]))
            output = teacher(x)
            handle.remove()
            return output, seen[0]

        def configure_optimizers(self):
            optimizers, schedulers = super().configure_optimizers()
            optimizers[0].param_groups[0]["params"].extend(self.projection.parameters())
            return optimizers, schedulers

    return ByHand


class FirstAdapters(L.Callback):
    """Keeps the adapter's weights as they were before the first step."""

    def on_train_start(self, trainer, pl_module):
        self.projection = copy.deepcopy(pl_module._kd_adapters["feature"].adapters[0].projection.state_dict())


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_weights_equal_those_of_a_hand_written_module(
    precision, accumulate, precision_options, classifier, cnn, teacher, loader, trainer, weights
):
    torch.manual_seed(3)
    start = cnn()
    kd = KnowledgeDistillation(
        teacher,
        student="net",
        objectives=[
            LogitKD(temperature=TEMPERATURE, weight=0.9),
            FeatureKD("body", "block", normalization="none", weight=0.5),
        ],
        task_weight=0.1,
    )
    options = {"max_epochs": 2, "accumulate_grad_batches": accumulate}
    options |= precision_options(precision)
    ours = classifier(copy.deepcopy(start))
    first = FirstAdapters()
    trainer(callbacks=[kd, first], **options).fit(ours, loader(shuffle=False))

    projection = nn.Conv2d(6, 8, 1)
    projection.load_state_dict(first.projection)
    options |= precision_options(precision)
    theirs = by_hand(classifier, teacher.eval(), projection)(copy.deepcopy(start))
    trainer(**options).fit(theirs, loader(shuffle=False))

    assert not torch.equal(start.body[0].weight, ours.net.body[0].weight)
    for name, value in weights(ours.net).items():
        assert torch.equal(value, theirs.net.state_dict()[name]), name
    trained = kd.state_dict()["adapters"]
    assert not torch.equal(trained["feature.adapters.0.projection.weight"], first.projection["weight"])
    assert torch.equal(trained["feature.adapters.0.projection.weight"], projection.weight)
    assert torch.equal(trained["feature.adapters.0.projection.bias"], projection.bias)

"""Distil in a module that optimises manually: the mixin gives the terms, the module decides what to do with them.

Here they are clipped, and two optimisers step: one for the body of the network, one for its classifier.

Run it: ``python examples/manual_optimization.py``
"""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from digits import Digits, convolutional, quiet_trainer, trained_teacher
from torch import Tensor, nn

from lightning_kd import DistillationMixin, FeatureKD, LogitKD


class ManualStudent(DistillationMixin, L.LightningModule):
    """A small network that distils a teacher in its own training step.

    Args:
        teacher: A trained network. It is no child of this module: no parameter, no entry in checkpoints.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = convolutional(width=2)
        self.setup_distillation(
            teacher,
            student="net",
            objectives=[LogitKD(weight=0.9), FeatureKD("1", "1", weight=0.1)],
            task_weight=0.1,
            example_inputs=torch.zeros(2, 1, 8, 8),  # FeatureKD builds a projection from 4 to 64 channels
        )

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        with self.distill() as calls:
            task_loss = F.cross_entropy(self.net(images), labels)
        losses = self.distillation_losses(task_loss, calls)

        body, classifier = self.optimizers()
        body.zero_grad()
        classifier.zero_grad()
        self.manual_backward(losses.total)
        self.clip_gradients(body, gradient_clip_val=1.0)
        body.step()
        classifier.step()

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        self.log("accuracy", (self.net(images).argmax(dim=1) == labels).float().mean())

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.AdamW(self.net[:-1].parameters(), lr=5e-3),  # the adapters join this one
            torch.optim.SGD(self.net[-1].parameters(), lr=0.1),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 3 if parser.parse_args().fast else 15

    teacher = trained_teacher(epochs)
    L.seed_everything(1)
    student = ManualStudent(teacher)
    trainer = quiet_trainer(epochs)
    trainer.fit(student, Digits())
    for name, value in sorted(trainer.callback_metrics.items()):
        print(f"{name:20s} {value:.3f}")


if __name__ == "__main__":
    main()

"""Distil several teachers at once: the mean of what they say, weighted for each image by how sure they are.

The teachers see images of different size and normalisation. A student that is taught by its own moving average, without
any teacher, is trained beside it.

Run it: ``python examples/ensemble_teacher.py``
"""

import argparse

import lightning as L
import torch
from digits import Classifier, Digits, convolutional, quiet_trainer
from torch import nn

from lightning_kd import EnsembleTeacher, FrozenTeacher, KnowledgeDistillation, LogitKD, recipes
from lightning_kd.teachers import InputSpec, NormalizedView


def trained(width: int, epochs: int, *, centred: bool) -> nn.Module:
    """Train a network on the digits, of mean 0 and deviation 1 if ``centred``."""
    L.seed_everything(width)
    net = nn.Sequential(Centring(), convolutional(width)) if centred else convolutional(width)
    quiet_trainer(epochs).fit(Classifier(net), Digits())
    return net[1] if centred else net


class Centring(nn.Module):
    """Normalises images of values from 0 to 1; a user's data pipeline would do this."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.3) / 0.38


def accuracy(epochs: int, callbacks: list[L.Callback]) -> float:
    """Train a small student, and return its accuracy on the validation images, from 0 to 1."""
    L.seed_everything(1)
    trainer = quiet_trainer(epochs, callbacks)
    trainer.fit(Classifier(convolutional(width=2)), Digits())
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 2 if parser.parse_args().fast else 15

    plain, centred = InputSpec(mean=(0.0,), std=(1.0,)), InputSpec(mean=(0.3,), std=(0.38,))
    teacher = EnsembleTeacher(
        {
            "wide": trained(16, epochs, centred=False),
            "centred": FrozenTeacher(
                trained(12, epochs, centred=True), input_transform=NormalizedView(student=plain, teacher=centred)
            ),
        },
        weights="entropy",  # for each image, the surer teacher counts more
        temperature=4.0,  # the mean is taken at the temperature of the objective
    )
    kd = KnowledgeDistillation(
        teacher, student="net", objectives=[LogitKD(temperature=4.0, weight=0.9)], task_weight=0.1
    )
    print(f"student alone: {accuracy(epochs, []):.3f}")
    print(f"student of two teachers: {accuracy(epochs, [kd]):.3f}")
    print(f"student of its own average: {accuracy(epochs, [recipes.momentum_distillation(path='net')]):.3f}")


if __name__ == "__main__":
    main()

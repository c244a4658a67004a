"""Two students teach each other, without a teacher: each is an ordinary LightningModule with its own optimiser.

Run it: ``python examples/mutual_learning.py``
"""

import argparse

import lightning as L
import torch
from digits import Classifier, Digits, convolutional, quiet_trainer
from torch import nn

from lightning_kd import MutualLearning


class Perceptron(Classifier):
    """A student of another kind, with another optimiser."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


def students() -> dict[str, L.LightningModule]:
    """Both students, always with the same random weights."""
    L.seed_everything(1)
    return {"cnn": Classifier(convolutional(width=2)), "mlp": Perceptron()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 2 if parser.parse_args().fast else 15

    for name, module in students().items():
        trainer = quiet_trainer(epochs)
        trainer.fit(module, Digits())
        print(f"{name} alone: {trainer.callback_metrics['accuracy']:.3f}")

    mutual = MutualLearning(students(), student="net")
    trainer = quiet_trainer(epochs)
    trainer.fit(mutual, Digits())
    for name in mutual.peers:
        print(f"{name} beside the other: {trainer.callback_metrics[f'{name}/accuracy']:.3f}")
    # Each student is as it would be alone: mutual.peers["cnn"].net can be exported.


if __name__ == "__main__":
    main()

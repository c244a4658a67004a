"""Distil a trained network into a smaller one with one callback; the LightningModule does not change.

Run it: ``python examples/distil_classifier.py``
"""

import argparse

import lightning as L
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher

from lightning_kd import KnowledgeDistillation, LogitKD


def train_student(epochs: int, callbacks: list[L.Callback]) -> float:
    """Train the small network, always from the same seed.

    Args:
        epochs: How long.
        callbacks: What takes part; everything else stays the same.

    Returns:
        Accuracy on the validation images, from 0 to 1.
    """
    L.seed_everything(1)
    module = Classifier(convolutional(width=2))
    trainer = quiet_trainer(epochs, callbacks)
    trainer.fit(module, Digits())
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 3 if parser.parse_args().fast else 15

    distillation = KnowledgeDistillation(
        teacher=trained_teacher(epochs),
        student="net",  # the path of the student in the LightningModule; "" is its own forward
        objectives=[LogitKD(temperature=4.0, weight=0.9)],
        task_weight=0.1,
    )
    alone = train_student(epochs, [])
    distilled = train_student(epochs, [distillation])
    print(f"student alone:     {alone:.3f}")
    print(f"student distilled: {distilled:.3f}")


if __name__ == "__main__":
    main()

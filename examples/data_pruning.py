"""Distil on a fifth of the data: which part, and how much the teacher's word counts there.

Run it: ``python examples/data_pruning.py``
"""

import argparse
from collections.abc import Sequence

import lightning as L
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher
from torch.utils.data import DataLoader, Subset

from lightning_kd.recipes import pruned_kd
from lightning_kd.selection import random_subset, sample_difficulty, scored_subset

FRACTION = 0.2


def accuracy_on(chosen: Sequence[int], epochs: int, callbacks: Sequence[L.Callback] = ()) -> float:
    """Train a student on a part of the digits, always from the same weights and for as many epochs.

    Args:
        chosen: Indices of the images to train on.
        epochs: How long.
        callbacks: What takes part.

    Returns:
        Accuracy on the validation images, from 0 to 1.
    """
    L.seed_everything(1)
    digits = Digits()
    digits.training = Subset(digits.training, chosen)
    trainer = quiet_trainer(epochs, list(callbacks))
    trainer.fit(Classifier(convolutional(width=4)), digits)
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 4 if parser.parse_args().fast else 30
    teacher = trained_teacher(epochs)
    training = Digits().training
    images, labels = training.tensors

    # How sure the teacher is of each image: from one pass over all of them, in their order.
    difficulties = sample_difficulty(teacher, DataLoader(training, batch_size=256), measure="margin")
    parts = {
        "all of them": list(range(len(images))),
        "random": random_subset(len(images), FRACTION, labels=labels),
        "hardest": scored_subset(difficulties, FRACTION, labels=labels),
        "moderate": scored_subset(difficulties, FRACTION, keep="moderate", labels=labels),
    }
    print(f"{'images':<16}{'number':>8}{'alone':>8}{'distilled':>11}")
    for name, chosen in parts.items():
        # The less data, the more the teacher's word counts: here 0.5 on all images and 0.9 on a fifth.
        distillation = pruned_kd(teacher, len(chosen) / len(images), path="net")
        alone, distilled = accuracy_on(chosen, epochs), accuracy_on(chosen, epochs, [distillation])
        print(f"{name:<16}{len(chosen):>8}{alone:>8.3f}{distilled:>11.3f}")


if __name__ == "__main__":
    main()

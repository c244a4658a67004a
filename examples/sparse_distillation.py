"""Prune a student to 2:4 while it is distilled, round it to int8, remove channels for good: what it costs and saves.

Run it: ``python examples/sparse_distillation.py``
"""

import argparse
import copy

import lightning as L
import torch
from digits import Classifier, Digits, convolutional, quiet_trainer, trained_teacher
from torch import nn

from lightning_kd import KnowledgeDistillation, LogitKD, QuantizationAwareTraining, TwoFourSparsity
from lightning_kd.compression import network_size, prune_channels, two_four_layers

IMAGE = torch.zeros(1, 1, 8, 8)


def accuracy_of(student: nn.Module, epochs: int, callbacks: list[L.Callback]) -> float:
    """Train a network further, always from the same seed.

    Args:
        student: The network, which is changed.
        epochs: How long.
        callbacks: What takes part.

    Returns:
        Accuracy on the validation images, from 0 to 1.
    """
    L.seed_everything(1)
    trainer = quiet_trainer(epochs, callbacks)
    trainer.fit(Classifier(student, learning_rate=2e-3), Digits())
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    epochs = 3 if parser.parse_args().fast else 15
    teacher = trained_teacher(epochs)

    def distillation() -> KnowledgeDistillation:
        return KnowledgeDistillation(
            teacher, student="net", objectives=[LogitKD(temperature=4.0, weight=0.9)], task_weight=0.1
        )

    dense = convolutional(width=8)
    print(f"dense student:            {accuracy_of(dense, epochs, [distillation()]):.3f}")

    # Two of every four weights go; TensorRT's sparse kernels make use of it. The zeros survive rounding to int8.
    sparse = copy.deepcopy(dense)
    pruning = [distillation(), TwoFourSparsity(student="net")]
    print(f"2:4 sparse, distilled:    {accuracy_of(sparse, epochs, pruning):.3f}")
    rounding = [distillation(), TwoFourSparsity(student="net"), QuantizationAwareTraining(student="net")]
    print(f"and in int8:              {accuracy_of(sparse, epochs, rounding):.3f}")
    names = [name for name, is_sparse in two_four_layers(sparse).items() if is_sparse]
    print(f"sparse layers:            {', '.join(names)}")

    # Half of the channels go for good; every runtime makes use of it.
    smaller, report = prune_channels(dense, IMAGE, ratio=0.5)
    print(f"half the channels alone:  {accuracy_of(copy.deepcopy(smaller), epochs, []):.3f}")
    print(f"half of them, distilled:  {accuracy_of(smaller, epochs, [distillation()]):.3f}")
    print(f"parameters:               {report.before.parameters} -> {report.after.parameters}")
    print(f"multiply-accumulates:     {network_size(dense, IMAGE).macs} -> {network_size(smaller, IMAGE).macs}")


if __name__ == "__main__":
    main()

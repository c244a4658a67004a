"""Distil without a Trainer: in a plain PyTorch loop, or under Lightning Fabric with ``--fabric``.

Run it: ``python examples/bare_loop.py --fabric``
"""

import argparse
from collections.abc import Callable, Iterable

import lightning as L
import torch
import torch.nn.functional as F
from digits import Digits, convolutional, trained_teacher
from torch import Tensor, nn

from lightning_kd import CKAKD, Distiller, FeatureKD, LogitKD, Progress, Ramp


def train(
    model: nn.Module,
    distiller: Distiller,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    backward: Callable[[Tensor], None],
    epochs: int,
) -> None:
    """The loop: watch the student's call, ask for the losses, differentiate their total.

    Args:
        model: The student, or Fabric's wrapper of it.
        distiller: The distiller of the student.
        optimizer: Steps the student and the adapters.
        batches: Images and labels.
        backward: Differentiates a loss.
        epochs: How long.
    """
    for epoch in range(epochs):
        for images, labels in batches:
            with distiller.watch() as calls:
                task_loss = F.cross_entropy(model(images), labels)
            losses = distiller.losses(task_loss, calls, Progress(epoch=epoch))
            optimizer.zero_grad()
            backward(losses.total)
            optimizer.step()
        terms = {name: round(term.item(), 3) for name, term in losses.terms.items()}
        print(
            f"epoch {epoch}: task {losses.task.item():.3f}, terms {terms}, logit weight {losses.weights['logit']:.2f}"
        )


def accuracy(student: nn.Module, data: Digits) -> float:
    """Share of the validation images that the student gets right."""
    images, labels = data.validation.tensors
    student.eval()
    with torch.no_grad():
        return (student(images).argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    parser.add_argument("--fabric", action="store_true", help="let Lightning Fabric place and differentiate")
    options = parser.parse_args()
    epochs = 3 if options.fast else 15

    teacher, data = trained_teacher(epochs), Digits()
    L.seed_everything(1)
    student = convolutional(width=2)
    objectives = [
        LogitKD(weight=Ramp(1.0, 0.5, over=epochs)),
        FeatureKD("1", "1", weight=0.1),
        CKAKD("2", "2", weight=0.1),
    ]
    distiller = Distiller(student, teacher, objectives)
    distiller.build([torch.zeros(2, 1, 8, 8)])  # creates the adapters, here one from 4 to 64 channels
    parameters = [*student.parameters(), *distiller.adapters.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)

    if options.fabric:
        fabric = L.Fabric(accelerator="cpu", devices=1)
        fabric.to_device(distiller.adapters)
        model, optimizer = fabric.setup(student, optimizer)
        batches = fabric.setup_dataloaders(data.train_dataloader())
        train(model, distiller, optimizer, batches, backward=fabric.backward, epochs=epochs)
    else:
        train(student, distiller, optimizer, data.train_dataloader(), backward=Tensor.backward, epochs=epochs)

    distiller.detach()  # no hook is left on student and teacher
    print(f"accuracy: {accuracy(student, data):.3f}")


if __name__ == "__main__":
    main()

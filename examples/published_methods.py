"""Distil a vision transformer from a ConvNeXt by published methods, each one line, and compare what they gain.

Run it: ``python examples/published_methods.py dkd nkd dist``; ``lightning-kd methods`` lists the names.
"""

import argparse
import inspect

import lightning as L
import timm
from digits import Classifier, Digits, quiet_trainer
from torch import nn

from lightning_kd import KnowledgeDistillation, recipes

SIZE = 64


def small_vision_transformer() -> nn.Module:
    """A vision transformer for images of 64 by 64 pixels; always the same random weights."""
    L.seed_everything(1)
    return timm.create_model("test_vit", img_size=SIZE, in_chans=1, num_classes=10)


def distillation(name: str, teacher: nn.Module, student: nn.Module) -> KnowledgeDistillation:
    """The recipe of that name with its published defaults; some recipes look at both networks, some at the teacher."""
    recipe = getattr(recipes, name)
    networks = (teacher, student) if "student" in inspect.signature(recipe).parameters else (teacher,)
    return recipe(*networks, path="net")


def accuracy(net: nn.Module, epochs: int, callbacks: list[L.Callback]) -> float:
    """Train a network on the digits, and return its accuracy on the validation images, from 0 to 1."""
    trainer = quiet_trainer(epochs, callbacks)
    trainer.fit(Classifier(net, learning_rate=1e-3), Digits(size=SIZE))
    return trainer.callback_metrics["accuracy"].item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=["dkd", "dist", "ofa_kd", "review_kd", "sp"], metavar="METHOD")
    parser.add_argument(
        "--fast", action="store_true", help="train for one epoch: shows that it runs, not what it gains"
    )
    options = parser.parse_args()
    epochs = 1 if options.fast else 8

    L.seed_everything(0)
    teacher = timm.create_model("test_convnext", in_chans=1, num_classes=10)
    print(f"teacher (ConvNeXt): {accuracy(teacher, epochs, []):.3f}")
    print(f"student alone (ViT): {accuracy(small_vision_transformer(), epochs, []):.3f}")
    for name in options.methods:
        student = small_vision_transformer()
        print(f"student by {name}: {accuracy(student, epochs, [distillation(name, teacher, student)]):.3f}")


if __name__ == "__main__":
    main()

"""Distil a convolutional network of timm into a vision transformer without naming one layer of either.

The pairs of layers are chosen when training starts, by the CKA of every layer of one with every layer of the other.

Run it: ``python examples/cross_architecture.py``
"""

import argparse

import lightning as L
import timm
from digits import Classifier, Digits, quiet_trainer
from torch import nn

from lightning_kd import CKAKD, FeatureKD, KnowledgeDistillation, LogitKD
from lightning_kd.objectives import PairedObjective


def train(net: nn.Module, epochs: int, callbacks: list[L.Callback]) -> float:
    """Train a network on digits of 32 by 32 pixels.

    Args:
        net: The network.
        epochs: How long.
        callbacks: What takes part.

    Returns:
        Accuracy on the validation images, from 0 to 1.
    """
    trainer = quiet_trainer(epochs, callbacks)
    trainer.fit(Classifier(net, learning_rate=1e-3), Digits(size=32))
    return trainer.callback_metrics["accuracy"].item()


def small_vision_transformer() -> nn.Module:
    """A vision transformer for images of 32 by 32 pixels; always the same random weights."""
    L.seed_everything(1)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=96, depth=6, in_chans=1, num_classes=10
    )


def print_pairs(objective: PairedObjective) -> None:
    """Print which layers an objective distils between."""
    print(f"{objective.name}:")
    for student, teacher in zip(objective.student_taps, objective.teacher_taps, strict=True):
        print(f"  {student.path:10s} <- {teacher.path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--fast", action="store_true", help="train for a few epochs: shows that it runs, not what it gains"
    )
    parser.add_argument(
        "--pretrained", action="store_true", help="start the teacher from ImageNet weights (a download)"
    )
    options = parser.parse_args()
    epochs = 1 if options.fast else 8

    L.seed_everything(0)
    teacher = timm.create_model("convnext_atto", pretrained=options.pretrained, in_chans=1, num_classes=10)
    print(f"teacher (ConvNeXt): {train(teacher, epochs, []):.3f}")

    cka, feature = CKAKD.matched(top=3, samples=256), FeatureKD.matched(top=2, samples=256, weight=0.1)
    distillation = KnowledgeDistillation(teacher, student="net", objectives=[LogitKD(), cka, feature])
    alone = train(small_vision_transformer(), epochs, [])
    distilled = train(small_vision_transformer(), epochs, [distillation])
    print(f"student alone (ViT):     {alone:.3f}")
    print(f"student distilled (ViT): {distilled:.3f}")
    print_pairs(cka)
    print_pairs(feature)


if __name__ == "__main__":
    main()

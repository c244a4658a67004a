"""Small networks of two architectures for 28x28 images, and the pairs in which one teaches the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import timm
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

CLASSES = 10


def small_resnet(channels: Sequence[int], depth: int) -> nn.Module:
    """ResNet for 28x28 images: stem of stride 2, no pooling after it, four stages of ``depth`` blocks."""
    network = ResNet(BasicBlock, (depth,) * 4, channels=tuple(channels), in_chans=1, num_classes=CLASSES)
    network.maxpool = nn.Identity()
    return network


def small_vit(width: int, depth: int) -> nn.Module:
    """ViT for 28x28 images: 7x7 patches of 4x4 pixels, no class token, mean pooling."""
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=28,
        patch_size=4,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=width,
        depth=depth,
        num_heads=width // 16,
        class_token=False,
        global_pool="avg",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A teacher, a student of another architecture, and the places that are distilled where they must be named."""

    teacher: str
    student: str
    make_teacher: Callable[[], nn.Module]
    make_student: Callable[[], nn.Module]
    student_taps: tuple[str, ...]
    teacher_taps: tuple[str, ...]


PAIRS = {
    "cnn_to_vit": Pair(
        teacher="ResNet-18, widths 16-128",
        student="ViT, width 48, 3 blocks",
        make_teacher=lambda: small_resnet((16, 32, 64, 128), depth=2),
        make_student=lambda: small_vit(48, depth=3),
        student_taps=("blocks.1", "blocks.2"),
        teacher_taps=("layer3", "layer4"),
    ),
    "vit_to_cnn": Pair(
        teacher="ViT, width 64, 4 blocks",
        student="ResNet-10, widths 8-64",
        make_teacher=lambda: small_vit(64, depth=4),
        make_student=lambda: small_resnet((8, 16, 32, 64), depth=1),
        student_taps=("layer3", "layer4"),
        teacher_taps=("blocks.2", "blocks.3"),
    ),
}

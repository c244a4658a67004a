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


def small_vit(width: int, depth: int, *, class_token: bool) -> nn.Module:
    """ViT for 28x28 images: 4x4 patches of 7x7 pixels; it reads a class token, or else the mean of the patches."""
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=28,
        patch_size=7,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=width,
        depth=depth,
        num_heads=width // 16,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A teacher and a student of another architecture."""

    teacher: str
    student: str
    make_teacher: Callable[[], nn.Module]
    make_student: Callable[[], nn.Module]


# DeiT's student has a class token, and SimKD's teacher has none: so each architecture is in the form that every method
# can be applied to.
PAIRS = {
    "cnn_to_vit": Pair(
        teacher="ResNet-18, widths 16-128",
        student="ViT, width 48, 4 blocks, class token",
        make_teacher=lambda: small_resnet((16, 32, 64, 128), depth=2),
        make_student=lambda: small_vit(48, depth=4, class_token=True),
    ),
    "vit_to_cnn": Pair(
        teacher="ViT, width 64, 4 blocks, mean of patches",
        student="ResNet-10, widths 8-64",
        make_teacher=lambda: small_vit(64, depth=4, class_token=False),
        make_student=lambda: small_resnet((8, 16, 32, 64), depth=1),
    ),
}

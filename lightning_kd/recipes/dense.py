"""Recipes for segmentation."""

from dataclasses import replace
from typing import Literal

from torch import nn

from lightning_kd._checks import check_choice
from lightning_kd.callbacks import KnowledgeDistillation
from lightning_kd.families import stage_taps
from lightning_kd.objectives import BSDKD, CSFKD, HFDKD, PatchEmbeddingKD, SelectiveKD
from lightning_kd.recipes._places import EVERY_STAGE, at_stages, place
from lightning_kd.students.peers import Peers

TransKDVariant = Literal["base", "gl", "ea"]


def transkd(
    teacher: nn.Module, student: nn.Module, *, path: str = "", variant: TransKDVariant = "base"
) -> KnowledgeDistillation:
    """TransKD: patch embeddings and fused feature maps of four stages.

    Args:
        teacher: A trained network of four stages, such as SegFormer-B2 or PVTv2-B2.
        student: The network that the LightningModule trains, such as SegFormer-B0.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        variant: ``"base"``; ``"gl"`` mixes the last patch embedding globally and locally; ``"ea"`` assists each patch
            embedding by one of the teacher's width.

    Returns:
        The callback. Publications train with AdamW, learning rate 6e-5, weight decay 0.01.

    Raises:
        ValueError: If ``variant`` is unknown.

    Source:
        Liu et al., "TransKD: Transformer Knowledge Distillation for Efficient Semantic Segmentation",
        arXiv:2202.13393. Plain transformers and convolutional networks are ours.
    """
    check_choice("variant", variant, ("base", "gl", "ea"))
    embeddings = PatchEmbeddingKD(mixer="global_local" if variant == "gl" else "none", assistant=variant == "ea")
    fusion = place(CSFKD((), ()), teacher, student, at_stages(EVERY_STAGE), pairs=4)
    return KnowledgeDistillation(teacher, student=path, objectives=[fusion, embeddings])


def selective(
    teacher: nn.Module, student: nn.Module, *, path: str = "", ignore_index: int = 255
) -> KnowledgeDistillation:
    """Selective distillation: pixels and regions where the teacher's cross-entropy is lower than the student's.

    Args:
        teacher: A trained segmentation network.
        student: The network that the LightningModule trains.
        path: Where it is in the LightningModule; ``""`` is the module itself.
        ignore_index: Label of pixels that do not count.

    Returns:
        The callback.

    Source:
        Ours, after "A Good Student is Cooperative and Reliable: CNN-Transformer Collaborative Learning for Semantic
        Segmentation", whose formulas are not public.
    """
    objective = place(SelectiveKD(ignore_index=ignore_index), teacher, student, at_stages([3]), pairs=1)
    return KnowledgeDistillation(teacher, student=path, objectives=[objective])


def collaborative(peers: Peers, *, path: str = "", ignore_index: int = 255) -> KnowledgeDistillation:
    """Two segmentation networks that train together: consistent low layers, and each learns where the other is better.

    Args:
        peers: Both networks, of known families; the module's loss trains both.
        path: Where they are in the LightningModule; ``""`` is the module itself.
        ignore_index: Label of pixels that do not count.

    Returns:
        The callback, without a teacher.

    Raises:
        SetupError: If the family of a network is not known.

    Source:
        Ours, after the publication that `selective` names.
    """
    stages = {
        side: [replace(tap, path=f"{side}.{tap.path}") for tap in stage_taps(network, side)]
        for side, network in (("a", peers.a), ("b", peers.b))
    }
    low = HFDKD(stages["a"][0], stages["b"][0])
    high = BSDKD(stages["a"][3], stages["b"][3], ignore_index=ignore_index)
    return KnowledgeDistillation(None, student=path, objectives=[low, high])

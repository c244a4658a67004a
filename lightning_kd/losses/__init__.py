"""Losses as pure functions of tensors, each with a thin module that stores its options."""

from lightning_kd.losses.cka import CKALoss, MinibatchCKA, cka, cka_loss
from lightning_kd.losses.feature import CosineDistance, FeatureMSE, cosine_distance, feature_mse
from lightning_kd.losses.logit import SoftTargetKL, soft_target_kl
from lightning_kd.losses.selective import (
    SelectivePixelKL,
    SelectiveRegionCosine,
    selective_pixel_kl,
    selective_region_cosine,
)
from lightning_kd.losses.stages import (
    HierarchicalContext,
    PatchEmbeddingAlignment,
    hierarchical_context,
    patch_embedding_alignment,
)

__all__ = [
    "CKALoss",
    "CosineDistance",
    "FeatureMSE",
    "HierarchicalContext",
    "MinibatchCKA",
    "PatchEmbeddingAlignment",
    "SelectivePixelKL",
    "SelectiveRegionCosine",
    "SoftTargetKL",
    "cka",
    "cka_loss",
    "cosine_distance",
    "feature_mse",
    "hierarchical_context",
    "patch_embedding_alignment",
    "selective_pixel_kl",
    "selective_region_cosine",
    "soft_target_kl",
]

"""Losses as pure functions of tensors, each with a thin module that stores its options."""

from lightning_kd.losses.affinity import (
    AffinityMimicking,
    ImageTextContrastive,
    affinity_mimicking,
    image_text_contrastive,
)
from lightning_kd.losses.attention import AttentionKL, AttentionScoreMSE, attention_kl, attention_score_mse
from lightning_kd.losses.cka import CKALoss, MinibatchCKA, cka, cka_loss
from lightning_kd.losses.cross_entropy import SoftCrossEntropy, soft_cross_entropy
from lightning_kd.losses.exits import (
    ChannelDistributionKL,
    ChannelGramMSE,
    ExitCrossEntropy,
    channel_distribution_kl,
    channel_gram_mse,
    exit_cross_entropy,
)
from lightning_kd.losses.feature import CosineDistance, FeatureMSE, cosine_distance, feature_mse
from lightning_kd.losses.logit import SoftTargetKL, soft_target_kl
from lightning_kd.losses.masked import (
    DirectionL1,
    MaskedReconstruction,
    StandardizedSmoothL1,
    direction_l1,
    masked_reconstruction,
    standardized_smooth_l1,
)
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
from lightning_kd.losses.token_relations import TokenRelationKL, token_relation_kl

__all__ = [
    "AffinityMimicking",
    "AttentionKL",
    "AttentionScoreMSE",
    "CKALoss",
    "ChannelDistributionKL",
    "ChannelGramMSE",
    "CosineDistance",
    "DirectionL1",
    "ExitCrossEntropy",
    "FeatureMSE",
    "HierarchicalContext",
    "ImageTextContrastive",
    "MaskedReconstruction",
    "MinibatchCKA",
    "PatchEmbeddingAlignment",
    "SelectivePixelKL",
    "SelectiveRegionCosine",
    "SoftCrossEntropy",
    "SoftTargetKL",
    "StandardizedSmoothL1",
    "TokenRelationKL",
    "affinity_mimicking",
    "attention_kl",
    "attention_score_mse",
    "channel_distribution_kl",
    "channel_gram_mse",
    "cka",
    "cka_loss",
    "cosine_distance",
    "direction_l1",
    "exit_cross_entropy",
    "feature_mse",
    "hierarchical_context",
    "image_text_contrastive",
    "masked_reconstruction",
    "patch_embedding_alignment",
    "selective_pixel_kl",
    "selective_region_cosine",
    "soft_cross_entropy",
    "soft_target_kl",
    "standardized_smooth_l1",
    "token_relation_kl",
]

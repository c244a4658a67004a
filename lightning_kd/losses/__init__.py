"""Losses as pure functions of tensors, each with a thin module that stores its options."""

from lightning_kd.losses.affinity import (
    AffinityMimicking,
    ImageTextContrastive,
    affinity_mimicking,
    image_text_contrastive,
)
from lightning_kd.losses.attention import AttentionKL, AttentionScoreMSE, attention_kl, attention_score_mse
from lightning_kd.losses.attention_map import AttentionTransfer, attention_transfer
from lightning_kd.losses.channel_wise import ChannelWiseKL, channel_wise_kl
from lightning_kd.losses.cka import CKALoss, MinibatchCKA, cka, cka_loss
from lightning_kd.losses.contrastive import NoiseContrastive, noise_contrastive
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
from lightning_kd.losses.generation import GenerationError, generation_error
from lightning_kd.losses.inner_relations import (
    InterChannelCorrelation,
    PatchSimilarity,
    inter_channel_correlation,
    patch_similarity,
)
from lightning_kd.losses.logit import ClassMeanKL, SoftTargetKL, class_mean_kl, soft_target_kl, standardize_logits
from lightning_kd.losses.masked import (
    DirectionL1,
    MaskedReconstruction,
    StandardizedSmoothL1,
    direction_l1,
    masked_reconstruction,
    standardized_smooth_l1,
)
from lightning_kd.losses.relational import RelationalAngle, RelationalDistance, relational_angle, relational_distance
from lightning_kd.losses.relations import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    SimilarityPreserving,
    correlation_congruence,
    probabilistic_transfer,
    similarity_preserving,
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
from lightning_kd.losses.variational import VariationalInformation, variational_information

__all__ = [
    "AffinityMimicking",
    "AttentionKL",
    "AttentionScoreMSE",
    "AttentionTransfer",
    "CKALoss",
    "ChannelDistributionKL",
    "ChannelGramMSE",
    "ChannelWiseKL",
    "ClassMeanKL",
    "CorrelationCongruence",
    "CosineDistance",
    "DirectionL1",
    "ExitCrossEntropy",
    "FeatureMSE",
    "GenerationError",
    "HierarchicalContext",
    "ImageTextContrastive",
    "InterChannelCorrelation",
    "MaskedReconstruction",
    "MinibatchCKA",
    "NoiseContrastive",
    "PatchEmbeddingAlignment",
    "PatchSimilarity",
    "ProbabilisticTransfer",
    "RelationalAngle",
    "RelationalDistance",
    "SelectivePixelKL",
    "SelectiveRegionCosine",
    "SimilarityPreserving",
    "SoftCrossEntropy",
    "SoftTargetKL",
    "StandardizedSmoothL1",
    "TokenRelationKL",
    "VariationalInformation",
    "affinity_mimicking",
    "attention_kl",
    "attention_score_mse",
    "attention_transfer",
    "channel_distribution_kl",
    "channel_gram_mse",
    "channel_wise_kl",
    "cka",
    "cka_loss",
    "class_mean_kl",
    "correlation_congruence",
    "cosine_distance",
    "direction_l1",
    "exit_cross_entropy",
    "feature_mse",
    "generation_error",
    "hierarchical_context",
    "image_text_contrastive",
    "inter_channel_correlation",
    "masked_reconstruction",
    "noise_contrastive",
    "patch_embedding_alignment",
    "patch_similarity",
    "probabilistic_transfer",
    "relational_angle",
    "relational_distance",
    "selective_pixel_kl",
    "selective_region_cosine",
    "similarity_preserving",
    "soft_cross_entropy",
    "soft_target_kl",
    "standardize_logits",
    "standardized_smooth_l1",
    "token_relation_kl",
    "variational_information",
]

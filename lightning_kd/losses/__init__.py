"""Losses as pure functions of tensors, each with a thin module that stores its options."""

from lightning_kd.losses.adaptive_computation import (
    budget_loss,
    computation_share,
    cumulative_mse,
    gate_diversity_loss,
    gate_entropy_loss,
    useful_learners,
)
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
from lightning_kd.losses.contextual import HiddenFrameRegression, contextual_target, hidden_frame_regression
from lightning_kd.losses.contrastive import NoiseContrastive, noise_contrastive
from lightning_kd.losses.correlation import ClassCorrelation, class_correlation
from lightning_kd.losses.cross_entropy import SoftCrossEntropy, soft_cross_entropy
from lightning_kd.losses.ctc import CTCFrameKL, FrameKL, GuidedCTC, frame_kl, guided_ctc
from lightning_kd.losses.decoupled import DecoupledKL, NormalizedCrossEntropy, decoupled_kl, normalized_cross_entropy
from lightning_kd.losses.discrimination import Discrimination, discrimination
from lightning_kd.losses.divergences import JensenShannon, SymmetricKL, jensen_shannon, symmetric_kl
from lightning_kd.losses.exits import (
    ChannelDistributionKL,
    ChannelGramMSE,
    ExitCrossEntropy,
    channel_distribution_kl,
    channel_gram_mse,
    exit_cross_entropy,
)
from lightning_kd.losses.feature import CosineDistance, FeatureMSE, cosine_distance, feature_mse
from lightning_kd.losses.frame_regression import FrameRegression, MaskedSpanMSE, frame_regression, masked_span_mse
from lightning_kd.losses.frame_selection import (
    AllFrames,
    EliminateBlanks,
    FrameSelection,
    KeepAround,
    RandomBlanks,
    ThresholdBlanks,
    TrimBlanks,
    WidenAround,
    select_frames,
    spiking_frames,
)
from lightning_kd.losses.frames import FrameCosine, FrameL1, FrameMSE, frame_cosine, frame_l1, frame_mse, reduce_frames
from lightning_kd.losses.generation import GenerationError, generation_error
from lightning_kd.losses.hard import HardTargetCrossEntropy, class_balanced_weights, hard_target_cross_entropy
from lightning_kd.losses.inner_relations import (
    InterChannelCorrelation,
    PatchSimilarity,
    inter_channel_correlation,
    patch_similarity,
)
from lightning_kd.losses.interpolation import (
    InterpolatedCrossEntropy,
    Interpolation,
    interpolated_cross_entropy,
    next_interpolation,
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
from lightning_kd.losses.mutual_information import MutualInformationLoss, mutual_information_loss
from lightning_kd.losses.ofa import OneForAll, one_for_all
from lightning_kd.losses.relational import RelationalAngle, RelationalDistance, relational_angle, relational_distance
from lightning_kd.losses.relations import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    SimilarityPreserving,
    correlation_congruence,
    probabilistic_transfer,
    similarity_preserving,
)
from lightning_kd.losses.scale import ViewDistance, view_distance
from lightning_kd.losses.selective import (
    SelectivePixelKL,
    SelectiveRegionCosine,
    selective_pixel_kl,
    selective_region_cosine,
)
from lightning_kd.losses.sequence import CTCHypotheses, ctc_hypotheses, ctc_negative_log_likelihood
from lightning_kd.losses.skew import SkewKL, SkewReverseKL, skew_kl, skew_reverse_kl
from lightning_kd.losses.stages import (
    HierarchicalContext,
    PatchEmbeddingAlignment,
    hierarchical_context,
    patch_embedding_alignment,
)
from lightning_kd.losses.teacher_dropping import CosineSmoothL1, DroppedMean, cosine_smooth_l1, dropped_mean
from lightning_kd.losses.token_relations import TokenRelationKL, token_relation_kl
from lightning_kd.losses.transducer import TransducerKL, transducer_kl
from lightning_kd.losses.unlabelled import (
    WeightAwareCrossEntropy,
    WeightedFeatureMSE,
    class_similarities,
    combined_confidence,
    most_confident,
    weight_aware_cross_entropy,
    weighted_feature_mse,
)
from lightning_kd.losses.variational import VariationalInformation, variational_information

__all__ = [
    "AffinityMimicking",
    "AllFrames",
    "AttentionKL",
    "AttentionScoreMSE",
    "AttentionTransfer",
    "CKALoss",
    "CTCFrameKL",
    "CTCHypotheses",
    "ChannelDistributionKL",
    "ChannelGramMSE",
    "ChannelWiseKL",
    "ClassCorrelation",
    "ClassMeanKL",
    "CorrelationCongruence",
    "CosineDistance",
    "CosineSmoothL1",
    "DecoupledKL",
    "DirectionL1",
    "Discrimination",
    "DroppedMean",
    "EliminateBlanks",
    "ExitCrossEntropy",
    "FeatureMSE",
    "FrameCosine",
    "FrameKL",
    "FrameL1",
    "FrameMSE",
    "FrameRegression",
    "FrameSelection",
    "GenerationError",
    "GuidedCTC",
    "HardTargetCrossEntropy",
    "HiddenFrameRegression",
    "HierarchicalContext",
    "ImageTextContrastive",
    "InterChannelCorrelation",
    "InterpolatedCrossEntropy",
    "Interpolation",
    "JensenShannon",
    "KeepAround",
    "MaskedReconstruction",
    "MaskedSpanMSE",
    "MinibatchCKA",
    "MutualInformationLoss",
    "NoiseContrastive",
    "NormalizedCrossEntropy",
    "OneForAll",
    "PatchEmbeddingAlignment",
    "PatchSimilarity",
    "ProbabilisticTransfer",
    "RandomBlanks",
    "RelationalAngle",
    "RelationalDistance",
    "SelectivePixelKL",
    "SelectiveRegionCosine",
    "SimilarityPreserving",
    "SkewKL",
    "SkewReverseKL",
    "SoftCrossEntropy",
    "SoftTargetKL",
    "StandardizedSmoothL1",
    "SymmetricKL",
    "ThresholdBlanks",
    "TokenRelationKL",
    "TransducerKL",
    "TrimBlanks",
    "VariationalInformation",
    "ViewDistance",
    "WeightAwareCrossEntropy",
    "WeightedFeatureMSE",
    "WidenAround",
    "affinity_mimicking",
    "attention_kl",
    "attention_score_mse",
    "attention_transfer",
    "budget_loss",
    "channel_distribution_kl",
    "channel_gram_mse",
    "channel_wise_kl",
    "cka",
    "cka_loss",
    "class_balanced_weights",
    "class_correlation",
    "class_mean_kl",
    "class_similarities",
    "combined_confidence",
    "computation_share",
    "contextual_target",
    "correlation_congruence",
    "cosine_distance",
    "cosine_smooth_l1",
    "ctc_hypotheses",
    "ctc_negative_log_likelihood",
    "cumulative_mse",
    "decoupled_kl",
    "direction_l1",
    "discrimination",
    "dropped_mean",
    "exit_cross_entropy",
    "feature_mse",
    "frame_cosine",
    "frame_kl",
    "frame_l1",
    "frame_mse",
    "frame_regression",
    "gate_diversity_loss",
    "gate_entropy_loss",
    "generation_error",
    "guided_ctc",
    "hard_target_cross_entropy",
    "hidden_frame_regression",
    "hierarchical_context",
    "image_text_contrastive",
    "inter_channel_correlation",
    "interpolated_cross_entropy",
    "jensen_shannon",
    "masked_reconstruction",
    "masked_span_mse",
    "most_confident",
    "mutual_information_loss",
    "next_interpolation",
    "noise_contrastive",
    "normalized_cross_entropy",
    "one_for_all",
    "patch_embedding_alignment",
    "patch_similarity",
    "probabilistic_transfer",
    "reduce_frames",
    "relational_angle",
    "relational_distance",
    "select_frames",
    "selective_pixel_kl",
    "selective_region_cosine",
    "similarity_preserving",
    "skew_kl",
    "skew_reverse_kl",
    "soft_cross_entropy",
    "soft_target_kl",
    "spiking_frames",
    "standardize_logits",
    "standardized_smooth_l1",
    "symmetric_kl",
    "token_relation_kl",
    "transducer_kl",
    "useful_learners",
    "variational_information",
    "view_distance",
    "weight_aware_cross_entropy",
    "weighted_feature_mse",
]

"""Smaller networks that keep what distillation gained: fewer bits, fewer weights, fewer channels."""

from lightning_kd.compression.allocation import allocate_levels, gradient_norms
from lightning_kd.compression.channels import PruningReport, prune_channels, remove_zero_channels, replay_pruning
from lightning_kd.compression.masks import WeightMasks, layer_importance, pruned_share, two_four_layers, two_four_mask
from lightning_kd.compression.quantizers import quantize_activation, quantize_to_levels, ternarize, uniform_quantize
from lightning_kd.compression.size import NetworkSize, network_size
from lightning_kd.compression.substitution import WeightSubstitution
from lightning_kd.compression.weight_quantizers import LearnedLevels, TernaryWeights, UniformWeights, WeightQuantizer
from lightning_kd.compression.weights import LayerWeight, layer_weights

__all__ = [
    "LayerWeight",
    "LearnedLevels",
    "NetworkSize",
    "PruningReport",
    "TernaryWeights",
    "UniformWeights",
    "WeightMasks",
    "WeightQuantizer",
    "WeightSubstitution",
    "allocate_levels",
    "gradient_norms",
    "layer_importance",
    "layer_weights",
    "network_size",
    "prune_channels",
    "pruned_share",
    "quantize_activation",
    "quantize_to_levels",
    "remove_zero_channels",
    "replay_pruning",
    "ternarize",
    "two_four_layers",
    "two_four_mask",
    "uniform_quantize",
]

"""Smaller networks that keep what distillation gained: fewer bits, fewer weights, fewer channels."""

from lightning_kd.compression.allocation import allocate_levels, gradient_norms
from lightning_kd.compression.masks import WeightMasks, pruned_share, two_four_layers, two_four_mask
from lightning_kd.compression.quantizers import quantize_activation, quantize_to_levels, ternarize, uniform_quantize
from lightning_kd.compression.substitution import WeightSubstitution
from lightning_kd.compression.weight_quantizers import LearnedLevels, TernaryWeights, UniformWeights, WeightQuantizer
from lightning_kd.compression.weights import LayerWeight, layer_weights

__all__ = [
    "LayerWeight",
    "LearnedLevels",
    "TernaryWeights",
    "UniformWeights",
    "WeightMasks",
    "WeightQuantizer",
    "WeightSubstitution",
    "allocate_levels",
    "gradient_norms",
    "layer_weights",
    "pruned_share",
    "quantize_activation",
    "quantize_to_levels",
    "ternarize",
    "two_four_layers",
    "two_four_mask",
    "uniform_quantize",
]

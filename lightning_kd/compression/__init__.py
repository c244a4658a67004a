"""Smaller networks that keep what distillation gained: fewer bits, fewer weights, fewer channels."""

from lightning_kd.compression.masks import WeightMasks, pruned_share, two_four_layers, two_four_mask
from lightning_kd.compression.weights import LayerWeight, layer_weights

__all__ = [
    "LayerWeight",
    "WeightMasks",
    "layer_weights",
    "pruned_share",
    "two_four_layers",
    "two_four_mask",
]

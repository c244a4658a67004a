"""Smaller networks that keep what distillation gained: fewer bits, fewer weights, fewer channels."""

from lightning_kd.compression.allocation import allocate_levels, gradient_norms
from lightning_kd.compression.channels import PruningReport, prune_channels, remove_zero_channels, replay_pruning
from lightning_kd.compression.encoder_gates import EncoderGates
from lightning_kd.compression.encoder_pruning import prune_encoder
from lightning_kd.compression.hard_concrete import HardConcreteGate, SparsityConstraint
from lightning_kd.compression.masks import WeightMasks, layer_importance, pruned_share, two_four_layers, two_four_mask
from lightning_kd.compression.quantizers import quantize_activation, quantize_to_levels, ternarize, uniform_quantize
from lightning_kd.compression.size import NetworkSize, network_size
from lightning_kd.compression.speech_encoders import (
    EncoderShape,
    find_encoder,
    load_shaped,
    save_shaped,
    shaped_model,
)
from lightning_kd.compression.substitution import WeightSubstitution
from lightning_kd.compression.weight_quantizers import LearnedLevels, TernaryWeights, UniformWeights, WeightQuantizer
from lightning_kd.compression.weights import LayerWeight, layer_weights

__all__ = [
    "EncoderGates",
    "EncoderShape",
    "HardConcreteGate",
    "LayerWeight",
    "LearnedLevels",
    "NetworkSize",
    "PruningReport",
    "SparsityConstraint",
    "TernaryWeights",
    "UniformWeights",
    "WeightMasks",
    "WeightQuantizer",
    "WeightSubstitution",
    "allocate_levels",
    "find_encoder",
    "gradient_norms",
    "layer_importance",
    "layer_weights",
    "load_shaped",
    "network_size",
    "prune_channels",
    "prune_encoder",
    "pruned_share",
    "quantize_activation",
    "quantize_to_levels",
    "remove_zero_channels",
    "replay_pruning",
    "save_shaped",
    "shaped_model",
    "ternarize",
    "two_four_layers",
    "two_four_mask",
    "uniform_quantize",
]

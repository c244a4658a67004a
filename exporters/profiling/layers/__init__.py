"""Where the time of a run goes: one figure per layer, measured in runs of their own."""

from exporters.profiling.layers.profile import profile_layers
from exporters.profiling.layers.result import LayerProfile, LayerTime

__all__ = ["LayerProfile", "LayerTime", "profile_layers"]

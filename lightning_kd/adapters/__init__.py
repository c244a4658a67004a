"""Modules that bring student features to the teacher's; built from shapes, used only in training."""

from lightning_kd.adapters.align import AdapterNorm, Align, Geometry, Probe, Projection, as_map, projection_of

__all__ = ["AdapterNorm", "Align", "Geometry", "Probe", "Projection", "as_map", "projection_of"]

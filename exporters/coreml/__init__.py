"""Export to Core ML: packages for Apple's systems, written and checked on any."""

from exporters.coreml.exporter import CoreMLExporter
from exporters.coreml.options import ImageInput, LinearWeights, Palette, Sparsity

__all__ = ["CoreMLExporter", "ImageInput", "LinearWeights", "Palette", "Sparsity"]

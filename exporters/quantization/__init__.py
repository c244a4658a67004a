"""Fewer bits and fewer weights in exported networks."""

from exporters.quantization.api import sensitivity
from exporters.quantization.options import QuantizationOptions
from exporters.quantization.report import CalibrationRecord, LayerSensitivity, QuantizationReport, Trial

__all__ = [
    "CalibrationRecord",
    "LayerSensitivity",
    "QuantizationOptions",
    "QuantizationReport",
    "Trial",
    "sensitivity",
]

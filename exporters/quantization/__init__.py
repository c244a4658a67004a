"""Fewer bits and fewer weights in exported networks."""

from exporters.quantization.options import QuantizationOptions
from exporters.quantization.report import CalibrationRecord, QuantizationReport, Trial

__all__ = ["CalibrationRecord", "QuantizationOptions", "QuantizationReport", "Trial"]

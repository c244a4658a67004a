"""Networks for the edge: exported, checked against PyTorch number by number, profiled.

Importing this package loads neither PyTorch nor any runtime, so that a machine that only serves needs neither.
"""

from exporters.api import export, load, pytorch_session
from exporters.artifact import Artifact
from exporters.bundles import Bundle, ModelCard, bundle, open_bundle
from exporters.errors import (
    ArtifactError,
    CaptureError,
    ConversionError,
    DeviceError,
    DeviceTimeoutError,
    ExportError,
    InputError,
    InventoryError,
    MeasurementError,
    MissingRuntimeError,
    ParityError,
    PathError,
    PlacementError,
    PlatformError,
    TaskError,
)
from exporters.metadata import InputDescription, ModelMetadata, read_metadata
from exporters.parity import Tolerance
from exporters.preprocessing import ImagePreprocessing, LogMelPreprocessing
from exporters.profiling import Comparison, Profile, ProfileOptions, compare, profile
from exporters.quantization import QuantizationOptions
from exporters.session import Session
from exporters.signature import DimensionRange, TensorSpec
from exporters.spec import ExportSpec
from exporters.task import TaskReport
from exporters.windows import SlidingWindow

__all__ = [
    "Artifact",
    "ArtifactError",
    "Bundle",
    "CaptureError",
    "Comparison",
    "ConversionError",
    "DeviceError",
    "DeviceTimeoutError",
    "DimensionRange",
    "ExportError",
    "ExportSpec",
    "ImagePreprocessing",
    "InputDescription",
    "InputError",
    "InventoryError",
    "LogMelPreprocessing",
    "MeasurementError",
    "MissingRuntimeError",
    "ModelCard",
    "ModelMetadata",
    "ParityError",
    "PathError",
    "PlacementError",
    "PlatformError",
    "Profile",
    "ProfileOptions",
    "QuantizationOptions",
    "Session",
    "SlidingWindow",
    "TaskError",
    "TaskReport",
    "TensorSpec",
    "Tolerance",
    "bundle",
    "compare",
    "export",
    "load",
    "open_bundle",
    "profile",
    "pytorch_session",
    "read_metadata",
]

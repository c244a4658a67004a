"""Networks for the edge: exported, checked against PyTorch number by number, profiled.

Importing this package loads neither PyTorch nor any runtime, so that a machine that only serves needs neither.
"""

from exporters.api import export, load, pytorch_session
from exporters.artifact import Artifact
from exporters.errors import (
    ArtifactError,
    CaptureError,
    ConversionError,
    ExportError,
    InputError,
    MissingRuntimeError,
    ParityError,
    PathError,
    PlatformError,
)
from exporters.profiling import Comparison, Profile, ProfileOptions, compare, profile
from exporters.session import Session
from exporters.signature import TensorSpec

__all__ = [
    "Artifact",
    "ArtifactError",
    "CaptureError",
    "Comparison",
    "ConversionError",
    "ExportError",
    "InputError",
    "MissingRuntimeError",
    "ParityError",
    "PathError",
    "PlatformError",
    "Profile",
    "ProfileOptions",
    "Session",
    "TensorSpec",
    "compare",
    "export",
    "load",
    "profile",
    "pytorch_session",
]

"""Errors raised by the exporters; catch `ExportError` for all of them.

ExportError
├── CaptureError         a network that `torch.export` cannot turn into one graph (also a ValueError)
├── ConversionError      a graph that a runtime's converter refuses (also a RuntimeError)
├── QuantizationError    a network whose quantisers are missing, unmeasured or in the way (also a ValueError)
├── ParityError          an exported network that does not compute what PyTorch computes (also a ValueError)
├── TaskError            an exported network that is too bad at its task (also a ValueError)
├── ArtifactError        an exported file or manifest that is missing, damaged or of another schema (also a ValueError)
├── HistoryError         a history of latencies that cannot be read, or is of another version (also a ValueError)
├── PathError            a target that cannot be written (also an OSError)
├── InputError           arrays that do not fit the inputs of a session (also a ValueError)
├── PlacementError       threads or cores that a measurement cannot have (also a ValueError)
├── MeasurementError     a measurement that did not come to its end (also a RuntimeError)
├── InventoryError       a device that is named or described wrongly (also a ValueError)
├── DeviceError          a device that cannot be reached or does not finish its job (also an OSError)
│   └── DeviceTimeoutError   one that takes longer than it may (also a TimeoutError)
├── PlatformError        a runtime that does not run on this operating system (also a RuntimeError)
└── MissingRuntimeError  a runtime that is not installed (also an ImportError)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.parity import ParityReport


class ExportError(Exception):
    """Base of every error that the exporters raise on purpose."""


class CaptureError(ExportError, ValueError):
    """A network that `torch.export` cannot turn into one graph."""


class ConversionError(ExportError, RuntimeError):
    """A graph that a runtime's converter refuses."""


class QuantizationError(ExportError, ValueError):
    """A network whose quantisers are missing, unmeasured or in the way."""


class ParityError(ExportError, ValueError):
    """An exported network that does not compute what PyTorch computes.

    Args:
        message: What differs, by how much.
        report: The figures; ``None`` where names or shapes differ already.
    """

    def __init__(self, message: str = "", report: "ParityReport | None" = None) -> None:
        super().__init__(message)
        self.report = report


class TaskError(ExportError, ValueError):
    """An exported network that is too bad at its task."""


class ArtifactError(ExportError, ValueError):
    """An exported file or manifest that is missing, damaged or of another schema."""


class HistoryError(ExportError, ValueError):
    """A history of latencies that cannot be read, or is of another version."""


class PathError(ExportError, OSError):
    """A target that cannot be written."""


class InputError(ExportError, ValueError):
    """Arrays that do not fit the inputs of a session."""


class PlacementError(ExportError, ValueError):
    """Threads or cores that a measurement cannot have."""


class MeasurementError(ExportError, RuntimeError):
    """A measurement that did not come to its end."""


class InventoryError(ExportError, ValueError):
    """A device that is named or described wrongly."""


class DeviceError(ExportError, OSError):
    """A device that cannot be reached or does not finish its job."""


class DeviceTimeoutError(DeviceError, TimeoutError):
    """A device that takes longer than it may."""


class PlatformError(ExportError, RuntimeError):
    """A runtime that does not run on this operating system."""


class MissingRuntimeError(ExportError, ImportError):
    """A runtime that is not installed; the message names the extra."""

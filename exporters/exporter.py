"""What every exporter does, whatever its runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from exporters.artifact import Artifact
from exporters.network import Network
from exporters.parity import Precision, Tolerance
from exporters.quantization.calibration import Calibration
from exporters.quantization.options import QuantizationOptions
from exporters.quantization.report import QuantizationReport
from exporters.quantization.selection import Evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a file has to be.

    Args:
        precision: Type of the weights, and of the arithmetic where the format says so.
        metadata: Text to embed in the file.
        calibration: Real inputs; there iff ``precision`` is ``"int8"`` and the network is not quantised already.
        quantization: How to quantise.
        tolerance: Bounds that the file will be held to; those of the precision if ``None``.
        evaluate: The task's metric of a session, higher is better, to choose between recipes by; ``None`` without an
            evaluation.
    """

    precision: Precision = "fp32"
    metadata: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    quantization: QuantizationOptions = field(default_factory=QuantizationOptions)
    tolerance: Tolerance | None = None
    evaluate: Evaluate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What there is to say about a conversion beside the file.

    Args:
        notes: What a user of the file has to know.
        quantization: How the network was quantised; ``None`` if it was not.
        details: Facts of the format, as JSON has them.
    """

    notes: tuple[str, ...] = ()
    quantization: QuantizationReport | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class Exporter(Protocol):
    """Turns a network into a file and vouches for it: a frozen dataclass whose fields are its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def format(self) -> str:
        """Name of the format, as in ``exporters.export(..., to=format)``."""

    @property
    def suffix(self) -> str:
        """Suffix of the file that the runtime loads, with its dot."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that this exporter has; any other is refused before anything is done."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run, by package name."""

    def convert(self, network: Network, path: Path, request: Request) -> Conversion:
        """Write ``network`` to ``path``, with nothing left in its folder that is not part of the artifact.

        Raises:
            CaptureError: If `torch.export` cannot capture the network.
            ConversionError: If the converter refuses the graph, or the file does not say what was declared.
        """

    def verify(self, artifact: Artifact, network: Network, *, tolerance: Tolerance) -> Artifact:
        """Check the written file against ``network``: what it takes and returns, its precision, its numbers.

        Returns:
            The artifact with ``verified_on``, ``parity`` and ``audit`` filled in, and notes added.

        Raises:
            ConversionError: If the file does not say what was declared, or does not have its precision.
            ParityError: If the file does not compute what PyTorch computes.
        """

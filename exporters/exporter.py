"""What every exporter does, whatever its runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from exporters.artifact import Artifact
from exporters.network import Network
from exporters.parity import Precision


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
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that convert and run, by package name."""

    def convert(self, network: Network, path: Path, *, precision: Precision, metadata: Mapping[str, str]) -> None:
        """Write ``network`` to ``path``, with nothing else left in its folder.

        Raises:
            CaptureError: If `torch.export` cannot capture the network.
            ConversionError: If the converter refuses the graph, or the file does not say what was declared.
        """

    def verify(self, artifact: Artifact, network: Network) -> Artifact:
        """Check the written file against ``network``.

        Returns:
            The artifact with ``verified_on``, ``parity`` and ``notes`` filled in.

        Raises:
            ParityError: If the file does not compute what PyTorch computes.
        """

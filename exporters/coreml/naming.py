"""From an operation of a program back to the module that it came from."""

from collections.abc import Iterable
from typing import Any

from torch import fx

from exporters.capture import capture
from exporters.coreml.decomposition import supported
from exporters.errors import CaptureError, ConversionError
from exporters.layers import module_path
from exporters.network import Network
from exporters.sessions.coreml import node_name

_BATCH_NORM = "batch_norm"


class ModulePaths:
    """Paths of the modules behind the operations of a program, by the names that the converter keeps.

    Args:
        network: The network that was converted. If it was traced instead of captured, no name is known.
    """

    def __init__(self, network: Network) -> None:
        self._paths: dict[str, tuple[str, ...]] = {}
        try:
            nodes = supported(capture(network)).graph.nodes
        except CaptureError:
            return
        self._paths = {node.name: _paths(node) for node in nodes if node.op == "call_function"}

    def of(self, operation: str) -> tuple[str, ...]:
        """Paths of the modules of an operation, the nearest first; empty if its name says nothing.

        A batch norm that was folded into a convolution belongs to both.
        """
        name = node_name(operation)
        while name and name not in self._paths:
            name = name.rpartition("_")[0]
        return self._paths.get(name, ())

    def named(self, operations: Iterable[str]) -> tuple[str, ...]:
        """The modules of operations whose weights they hold, or the operation's name where no module is known."""
        return tuple(dict.fromkeys((self.of(name) or (name,))[-1] or name for name in operations))

    def within(self, operation: str, path: str) -> bool:
        """Whether an operation comes from the module ``path`` or one inside of it."""
        return any(found == path or found.startswith(f"{path}.") for found in self.of(operation))


class KeepFloat32:
    """Which operations of an fp16 package stay in float32.

    Args:
        network: The network that is converted.
        wanted: Operators of MIL such as ``"square"``, or paths of modules.
    """

    def __init__(self, network: Network, wanted: tuple[str, ...]) -> None:
        self._wanted = wanted
        self._paths = ModulePaths(network) if wanted else None
        self._found: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Names of the operations that were kept."""
        return sorted(self._found)

    def is_half(self, operation: Any) -> bool:
        """Whether an operation computes in float16; called by the converter for each."""
        for name in self._wanted:
            if operation.op_type == name or (self._paths is not None and self._paths.within(operation.name, name)):
                if operation.op_type != "const":
                    self._found[operation.name] = name
                return False
        return True

    def check(self) -> None:
        """Raise `ConversionError` if something wanted was not in the program."""
        missing = [name for name in self._wanted if name not in self._found.values()]
        if missing:
            raise ConversionError(
                f"`keep_float32` must name operators of MIL or modules of the network, got {missing}, which are none."
            )


def _path(node: fx.Node) -> str:
    path = module_path(node)
    while path.partition(".")[0] in ("module", "network"):  # what the exporters put around the user's module
        path = path.partition(".")[2]
    return path


def _paths(node: fx.Node) -> tuple[str, ...]:
    source = node.args[0] if node.args else None
    if _BATCH_NORM in str(node.target) and isinstance(source, fx.Node):
        return _path(node), _path(source)
    return (_path(node),)

"""Which layers of a captured network can be quantised, and where."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.export import ExportedProgram

_KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_aten = torch.ops.aten
_LAYERS = {
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
    _aten.linear.default,
}
_NORM = _aten.batch_norm.default
_RELUS = {_aten.relu.default, _aten.relu_.default}


@dataclass(frozen=True, slots=True)
class Place:
    """A layer that can be quantised.

    Attributes:
        path: Its path in the network.
        norm: Path of the batch norm that alone reads its output; ``None`` if there is none.
        output: Whether its output, or the batch norm's, must be quantised there: something reads it that is no
            quantised layer.
        non_negative: Whether every reader of that output is a ReLU.
    """

    path: str
    norm: str | None
    output: bool
    non_negative: bool


def find_places(
    module: nn.Module, program: ExportedProgram, prefix: str, is_kept: Callable[[str], bool]
) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Find what can be quantised in a network.

    Args:
        module: The network.
        program: Its capture.
        prefix: What precedes the network's names in the capture.
        is_kept: Whether the layer of a path is to stay in float.

    Returns:
        The places, in the order in which they run, and the names of the layers and weights that stay in float.
    """
    flow = _Flow(module, program, prefix)
    layers: dict[str, list[fx.Node]] = {}
    left: dict[str, None] = {}
    for node in program.graph.nodes:
        if node.target in _LAYERS:
            path = flow.owner(node, 1)
            if not (flow.is_layer(path) and flow.runs_in(node) == path):
                left[flow.name(node, 1)] = None
            elif is_kept(path):
                left[path] = None
            else:
                layers.setdefault(path, []).append(node)
    quantized = {node for nodes in layers.values() for node in nodes}
    return tuple(flow.place(path, nodes, quantized) for path, nodes in layers.items()), tuple(left)


class _Flow:
    """The graph of a network, with the modules that its parameters belong to."""

    def __init__(self, module: nn.Module, program: ExportedProgram, prefix: str) -> None:
        self.modules = dict(module.named_modules())
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.names = {placeholder: name.removeprefix(prefix) for placeholder, name in names.items()}
        self.prefix = prefix
        self.norms = Counter(self.owner(node, 3) for node in program.graph.nodes if node.target == _NORM)
        self.shares = Counter(
            id(parameter) for owner in self.modules.values() for parameter in owner.parameters(recurse=False)
        )

    def name(self, node: fx.Node, argument: int) -> str:
        """Name of the parameter or buffer that is an argument; that of the argument's node if it is computed."""
        source = node.args[argument] if len(node.args) > argument else None
        return self.names.get(source.name, source.name) if isinstance(source, fx.Node) else ""

    def owner(self, node: fx.Node, argument: int) -> str:
        """Path of the module whose parameter or buffer is an argument."""
        return self.name(node, argument).rpartition(".")[0]

    def runs_in(self, node: fx.Node) -> str:
        """Path of the innermost module whose code a node comes from: attention uses the weights of its own layers."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        return str(stack[-1][0]).removeprefix(self.prefix) if stack else ""

    def is_layer(self, path: str) -> bool:
        """Whether the module is a layer that can be quantised, with a weight of its own."""
        module = self.modules.get(path)
        return isinstance(module, _KINDS) and self.shares[id(module.weight)] == 1

    def place(self, path: str, nodes: list[fx.Node], quantized: set[fx.Node]) -> Place:
        """The place at a layer, given the nodes at which it runs, and those of all quantised layers."""
        norm = self._norm(nodes)
        ends = nodes if norm is None else list(nodes[0].users)
        readers = [reader for end in ends for reader in end.users]
        return Place(
            path,
            norm,
            output=not all(self._quantizes(end, quantized) for end in ends),
            non_negative=all(reader.target in _RELUS for reader in readers),
        )

    def _norm(self, nodes: list[fx.Node]) -> str | None:
        """Path of the batch norm that alone reads the layer's only result, and reads nothing else."""
        readers = list(nodes[0].users)
        if len(nodes) > 1 or len(readers) != 1 or readers[0].target != _NORM:
            return None
        path = self.owner(readers[0], 3)
        is_module = isinstance(self.modules.get(path), nn.modules.batchnorm._BatchNorm)  # noqa: SLF001 - the common base
        return path if is_module and self.norms[path] == 1 else None

    def _quantizes(self, node: fx.Node, quantized: set[fx.Node]) -> bool:
        """Whether one reader alone, or that of a ReLU in between, quantises the node's value first."""
        if len(node.users) != 1:
            return False
        reader = next(iter(node.users))
        if reader.target in _RELUS:
            return self._quantizes(reader, quantized)
        return reader in quantized and reader.args[0] is node

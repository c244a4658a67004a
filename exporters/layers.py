"""Where the nodes of a captured graph come from: the module that they belong to, and the value that they stand for."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_ATEN = torch.ops.aten
WEIGHTED = frozenset(
    (
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
        _ATEN.conv3d.default,
        _ATEN.conv1d.padding,
        _ATEN.conv2d.padding,
        _ATEN.conv3d.padding,
        _ATEN.conv_transpose1d.default,
        _ATEN.conv_transpose2d.input,
        _ATEN.conv_transpose3d.input,
        _ATEN.convolution.default,
        _ATEN.linear.default,
        _ATEN.addmm.default,
    )
)
"""Operators that multiply by weights: convolutions and linear layers."""

PRODUCTS = frozenset(
    (
        _ATEN.mm.default,
        _ATEN.bmm.default,
        _ATEN.baddbmm.default,
        _ATEN.matmul.default,
        _ATEN.scaled_dot_product_attention.default,
    )
)
"""Operators that multiply activations with each other, as attention does."""

COMPUTING = WEIGHTED | PRODUCTS


def module_path(node: fx.Node) -> str:
    """Path of the module whose forward made a node, as in ``named_modules`` of the network; ``""`` for its own.

    Example:
        >>> import torch
        >>> from exporters.capture import capture
        >>> from exporters.network import prepare
        >>> network = prepare(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.zeros(1, 3))
        >>> [module_path(node) for node in capture(network).graph.nodes if node.op == "call_function"]
        ['0', '1']
    """
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    # The outermost module is exporters.network.PositionalNetwork, which holds the network as `module`.
    return path.removeprefix("module").removeprefix(".") if path.split(".")[0] == "module" else ""


def layer_name(node: fx.Node) -> str:
    """Module path of a computing node, or its own name where the network itself computes it."""
    return module_path(node) or node.name


def producer(node: fx.Node) -> fx.Node | None:
    """The computing node that a value follows from through one operator after the other; ``None`` if there is none.

    Converters fold a normalisation into the convolution before it; the value they keep is that of the normalisation.
    """
    found: fx.Node | None = node
    while found is not None and found.target not in COMPUTING:
        found = found.all_input_nodes[0] if found.all_input_nodes else None
    return found


def decomposed_names(nodes: Iterable[fx.Node], program: ExportedProgram) -> dict[str, str]:
    """Names that the values of a converter's own graph have in ``program.run_decompositions({})``.

    A converter splits operators further, or less, and so counts names differently. Both graphs know which node of
    ``program`` theirs came from, so the last value of each is the same value.

    Args:
        nodes: Nodes of the converter's graph, which was made from ``program``.
        program: What was captured.

    Returns:
        Name by name of the converter's graph; values without a counterpart are left out.
    """
    theirs, ours = _results(nodes), _results(program.run_decompositions({}).graph.nodes)
    return {name: ours[source] for source, name in theirs.items() if source in ours}


def _results(nodes: Iterable[fx.Node]) -> dict[str, str]:
    """The one value that leaves the group of nodes with the same origin, by origin."""
    groups: dict[str, list[fx.Node]] = {}
    for node in nodes:
        if node.op == "call_function":
            groups.setdefault(origin(node), []).append(node)
    results: dict[str, str] = {}
    for source, group in groups.items():
        leaving = [node for node in group if any(user not in group for user in node.users)]
        if len(leaving) == 1:
            results[source] = leaving[0].name
    return results


def origin(node: fx.Node) -> str:
    """Name of the node of the captured program that a node was decomposed from, at the root of its provenance."""
    name, sources = node.name, node.meta.get("from_node")
    while sources:
        name, sources = sources[-1].name, sources[-1].from_node
    return str(name)

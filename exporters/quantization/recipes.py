"""What a graph contains, which decides how it is quantised: convolutions and attention need opposite recipes."""

from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from exporters.layers import PRODUCTS, WEIGHTED, layer_name

_SOFTMAX = frozenset((torch.ops.aten.softmax.int, torch.ops.aten._softmax.default))  # noqa: SLF001
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_NORM = torch.ops.aten.layer_norm.default


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphContents:
    """Layers of a captured network, by kind.

    Args:
        convolutions: Convolutions over space or time.
        linear: Linear layers.
        products: Layers that multiply activations with each other: attention, for the most part.
        token_mixing: Whether the graph normalises over channels or attends, as transformers and their kin do. A patch
            embedding or a convolutional front end does not take this away.
    """

    convolutions: tuple[str, ...]
    linear: tuple[str, ...]
    products: tuple[str, ...]
    token_mixing: bool

    @property
    def mixed(self) -> bool:
        """Whether convolutions are more than the front end of a transformer."""
        return self.token_mixing and len(self.convolutions) > max(2, len(self.linear) // 4)


def contents(program: ExportedProgram) -> GraphContents:
    """Describe a captured network.

    Example:
        >>> import torch
        >>> from exporters.capture import capture
        >>> from exporters.network import prepare
        >>> network = prepare(torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.ReLU()), torch.zeros(1, 2, 8))
        >>> contents(capture(network))
        GraphContents(convolutions=('0',), linear=(), products=(), token_mixing=False)
    """
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    weighted = [(layer_name(node), "conv" in str(node.target)) for node in nodes if node.target in WEIGHTED]
    targets = {node.target for node in nodes}
    return GraphContents(
        convolutions=tuple(name for name, convolution in weighted if convolution),
        linear=tuple(name for name, convolution in weighted if not convolution),
        products=tuple(dict.fromkeys(layer_name(node) for node in nodes if node.target in PRODUCTS)),
        token_mixing=bool(targets & _SOFTMAX) or _ATTENTION in targets or _NORM in targets,
    )

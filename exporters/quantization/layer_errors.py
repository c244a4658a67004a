"""Which layers of a network lose most when they are quantised to int8, each alone; in PyTorch, for every runtime."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from exporters.capture import capture
from exporters.layers import COMPUTING, layer_name
from exporters.network import Network
from exporters.parity import compare
from exporters.quantization.calibration import Calibration, Sample
from exporters.quantization.report import LayerSensitivity
from exporters.sessions.pytorch import torch_threads

_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_INPUT_MAJOR = ("addmm", "mm")


def layer_sensitivities(
    network: Network, calibration: Calibration, *, batches: int = 8
) -> tuple[LayerSensitivity, ...]:
    """Sensitivity of every layer of a prepared network; see `exporters.quantization.sensitivity`.

    Args:
        network: The network.
        calibration: Real inputs: ranges come from its batches, the comparison from those held out.
        batches: Largest number of held-out batches.

    Returns:
        One entry per layer, most sensitive first.
    """
    module = capture(network).run_decompositions({}).module()
    layers: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.target in COMPUTING:
            layers.setdefault(layer_name(node), []).append(node)
    with torch.no_grad(), torch_threads(1):
        ranges = _ranges(module, [_tensors(batch, network) for batch in calibration.batches])
        held_out = [_Run(module, _tensors(batch, network)) for batch in calibration.held_out[:batches]]
        found = [
            _one(name, nodes, held_out, ranges, [spec.name for spec in network.signature.outputs])
            for name, nodes in layers.items()
        ]
    return tuple(sorted(found, key=lambda entry: entry.sqnr_db))


def _one(
    name: str,
    nodes: Sequence[fx.Node],
    runs: Sequence["_Run"],
    ranges: Mapping[fx.Node, tuple[float, float]],
    outputs: Sequence[str],
) -> LayerSensitivity:
    results = [run.with_quantized(nodes, ranges) for run in runs]
    figures = [
        compare(output, [result[index] for result in results], [run.outputs[index] for run in runs])
        for index, output in enumerate(outputs)
    ]
    finite = not any(figure.nonfinite for figure in figures)
    return LayerSensitivity(
        layer=name,
        operator=str(nodes[0].target).split(".")[1],
        cosine=min(figure.cosine for figure in figures),
        sqnr_db=min(figure.sqnr_db for figure in figures) if finite else -math.inf,
    )


class _Run:
    """A forward pass whose values are kept, so that a part of it can be repeated."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[Tensor]) -> None:
        self._module = module
        self._inputs = inputs
        recorder = fx.Interpreter(module, garbage_collect_values=False)
        self.outputs = [output.numpy() for output in recorder.run(*inputs)]
        self._values = recorder.env

    def with_quantized(
        self, nodes: Sequence[fx.Node], ranges: Mapping[fx.Node, tuple[float, float]]
    ) -> list[np.ndarray]:
        """The outputs when ``nodes`` are quantised."""
        changed = set(nodes)
        for node in self._module.graph.nodes:
            if changed.intersection(node.all_input_nodes):
                changed.add(node)
        kept = {node: value for node, value in self._values.items() if node not in changed}
        interpreter = _Quantizing(self._module, frozenset(nodes), ranges)
        return [output.numpy() for output in interpreter.run(*self._inputs, initial_env=kept)]


class _Quantizing(fx.Interpreter):
    def __init__(
        self, module: fx.GraphModule, nodes: frozenset[fx.Node], ranges: Mapping[fx.Node, tuple[float, float]]
    ) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._nodes = nodes
        self._ranges = ranges

    def run_node(self, n: fx.Node) -> Any:
        if n not in self._nodes:
            return super().run_node(n)
        args = [self._rounded(arg, n) if isinstance(arg, fx.Node) else arg for arg in n.args]
        _, kwargs = self.fetch_args_kwargs_from_env(n)
        return n.target(*args, **kwargs)  # type: ignore[operator]

    def _rounded(self, source: fx.Node, node: fx.Node) -> Any:
        value = self.env[source]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            return value
        if source.op == "get_attr":
            return round_weight(value, axis=_output_axis(node))
        return round_activation(value, *self._ranges[source])


def round_weight(weight: Tensor, *, axis: int) -> Tensor:
    """Weights rounded to symmetric int8 per channel of ``axis``, in float32."""
    others = [dimension for dimension in range(weight.ndim) if dimension != axis % weight.ndim]
    scale = weight.abs().amax(others, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def round_activation(value: Tensor, low: float, high: float) -> Tensor:
    """Values rounded to 256 steps between ``low`` and ``high``, zero among them, in float32."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return value
    scale = (high - low) / 255
    zero = round(-low / scale)
    return ((value / scale).round() + zero).clamp(0, 255).sub(zero) * scale


def _output_axis(node: fx.Node) -> int:
    name = str(node.target).split(".")[1]
    if name in _TRANSPOSED or (name == "convolution" and node.args[6]):
        return 1
    return -1 if name in _INPUT_MAJOR else 0


class _Ranges(fx.Interpreter):
    """Smallest and largest value of what goes into the computing nodes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.ranges: dict[fx.Node, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point() and COMPUTING & {user.target for user in n.users}:
            low, high = self.ranges.get(n, (math.inf, -math.inf))
            self.ranges[n] = min(low, value.min().item()), max(high, value.max().item())
        return value


def _ranges(module: fx.GraphModule, batches: Sequence[Sequence[Tensor]]) -> dict[fx.Node, tuple[float, float]]:
    interpreter = _Ranges(module)
    for batch in batches:
        interpreter.run(*batch)
    return interpreter.ranges


def _tensors(batch: Sample, network: Network) -> list[Tensor]:
    return [torch.from_numpy(np.require(batch[spec.name], requirements="W")) for spec in network.signature.inputs]

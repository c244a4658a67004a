"""Int8 by ONNX Runtime's quantiser: recipes, and the search for the one that suits a network."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from exporters.capture import capture
from exporters.exporter import Request
from exporters.network import Network
from exporters.onnx_graph import constants
from exporters.onnx_names import layer_of
from exporters.quantization.onnxruntime import Ranges, quantize_graph
from exporters.quantization.recipes import contents
from exporters.quantization.report import QuantizationReport
from exporters.quantization.search import Runtime, draft, search
from exporters.session import Session
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.threads import available_threads

COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that multiply."""

_BETWEEN = (
    *("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Pad", "Relu"),
    *("Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Which operators are quantised, how ranges follow, and whether products of activations stay in float."""

    operators: tuple[str, ...] = COMPUTING
    ranges: Ranges = "minmax"
    keep_products: bool = False


# Between convolutions values stay int8 from layer to layer; between the layers of a transformer that costs too much.
RECIPES: Mapping[str, _Way] = {
    "whole": _Way(operators=(*COMPUTING, *_BETWEEN)),
    "whole-percentile": _Way(operators=(*COMPUTING, *_BETWEEN), ranges="percentile"),
    "products": _Way(),
    "products-percentile": _Way(ranges="percentile"),
    "weighted": _Way(keep_products=True),
}
"""``whole``: every operator that has int8 kernels; ``products``: convolutions and matrix products only; ``weighted``:
those with weights only, so that attention's own products stay in float. Ranges are the extremes or the 99.99th
percentile."""


def quantize_for_cpu(
    model: onnx.ModelProto, network: Network, request: Request
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Quantise a graph by the best of the recipes that suit it and ONNX Runtime's kernels; see `quantize_by_search`."""
    return quantize_by_search(
        model, network, request, recipes=_suitable(network), symmetric=False, open_session=OnnxRuntimeSession
    )


def quantize_by_search(
    model: onnx.ModelProto,
    network: Network,
    request: Request,
    *,
    recipes: Sequence[str],
    symmetric: bool,
    open_session: Callable[..., Session],
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Quantise a graph by the best of some recipes, as a runtime computes them on a CPU.

    Args:
        model: The graph in float32, its nodes named by `exporters.onnx_names.carry_names`.
        network: What it was made from.
        request: Real inputs, options and the task's metric.
        recipes: Names from `RECIPES` to choose from, best guess first.
        symmetric: As for `exporters.quantization.onnxruntime.quantize_graph`.
        open_session: Runs a quantised graph: called with a draft of the artifact, ``threads`` and ``precision``.
        finish: What else is done to a quantised graph before it is tried, such as a cast of the rest to float16.

    Returns:
        The finished graph with QuantizeLinear and DequantizeLinear, and what was tried.

    Raises:
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met.
        InputError: If the options do not fit the network.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def quantize(recipe: str, kept: frozenset[str]) -> onnx.ModelProto:
            way = RECIPES[recipe]
            batches = request.calibration.batches if request.calibration is not None else ()
            excluded = _excluded(model, kept, request.quantization.keep_float, keep_products=way.keep_products)
            quantized = quantize_graph(
                model,
                batches,
                operators=way.operators,
                exclude=excluded,
                ranges=way.ranges,
                symmetric=symmetric,
                cache=folder,
            )
            return quantized if finish is None else finish(quantized)

        def open_candidate(quantized: onnx.ModelProto) -> Session:
            path = folder / "candidate.onnx"
            onnx.save(quantized, path)
            return open_session(draft(path, "onnx", network.signature), threads=available_threads(), precision="fp32")

        runtime = Runtime(recipes=recipes, quantize=quantize, open_session=open_candidate, left_in_float=left_in_float)
        return search(network, request, runtime)


def left_in_float(model: onnx.ModelProto) -> tuple[str, ...]:
    """Layers whose inputs are not all dequantised int8 values, in order."""
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return tuple(
        dict.fromkeys(
            layer_of(node) or node.name
            for node in model.graph.node
            if node.op_type in COMPUTING and not set(node.input[:2]) <= dequantized
        )
    )


def _suitable(network: Network) -> tuple[str, ...]:
    found = contents(capture(network))
    transformer = ("products", "weighted", "products-percentile")
    convolutional = ("whole", "whole-percentile", "products")
    if found.mixed:
        return (*transformer, "whole")
    return transformer if found.token_mixing else convolutional


def _excluded(
    model: onnx.ModelProto, layers: frozenset[str], paths: tuple[str, ...], *, keep_products: bool
) -> list[str]:
    known = constants(model)
    kept = [
        node
        for node in model.graph.node
        if layer_of(node) in layers
        or any(f"{layer_of(node)}.".startswith(f"{path}.") for path in paths)
        or (keep_products and node.op_type == "MatMul" and not set(node.input) & known.keys())
    ]
    # What makes the input of such a layer would still round it.
    inputs = {name for node in kept if node.op_type in COMPUTING for name in node.input}
    kept += [node for node in model.graph.node if node.op_type in _BETWEEN and inputs.intersection(node.output)]
    return [node.name for node in kept]

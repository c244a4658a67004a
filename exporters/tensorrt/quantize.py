"""Int8 for TensorRT: symmetric Q/DQ pairs around convolutions and matrix products, by the recipe that comes closest."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from exporters.artifact import Artifact
from exporters.errors import InputError
from exporters.exporter import Request
from exporters.network import Network
from exporters.onnx_graph import constants
from exporters.quantization.onnxruntime import Ranges, quantize_graph
from exporters.quantization.report import QuantizationReport
from exporters.quantization.selection import Recipe, choose
from exporters.sessions.onnxruntime import OnnxRuntimeSession
from exporters.sessions.pytorch import PyTorchSession
from exporters.threads import available_threads

COMPUTING = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are quantised; all others stay in floating point, as TensorRT fuses them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How ranges follow from values, and whether products of activations with each other stay in floating point."""

    ranges: Ranges = "minmax"
    keep_products: bool = False


RECIPES: Mapping[str, _Way] = {
    "products": _Way(),
    "products-percentile": _Way(ranges="percentile"),
    "weighted": _Way(keep_products=True),
    "weighted-percentile": _Way(ranges="percentile", keep_products=True),
}
"""``products``: convolutions and all matrix products; ``weighted``: those with weights only, so that attention's own
products stay in floating point. Ranges are the extremes, or hold 99.99 % of the values."""


def quantize(
    model: onnx.ModelProto,
    network: Network,
    request: Request,
    *,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Quantise a graph by the best of the recipes that suit it, as ONNX Runtime computes them on a CPU.

    Args:
        model: The graph in float32.
        network: What it was made from.
        request: Real inputs, options and the task's metric.
        finish: What else is done to a quantised graph before it is tried, such as a cast of the rest to float16.

    Returns:
        The finished graph, and what was tried.

    Raises:
        ConversionError: If no recipe can be applied.
    """
    calibration = request.calibration
    if calibration is None:
        raise InputError("`calibration` must be given to quantise a network that was trained without it, got None.")
    graphs: dict[str, onnx.ModelProto] = {}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "candidate.onnx")

        def opener(recipe: str) -> Callable[[], OnnxRuntimeSession]:
            def open_session() -> OnnxRuntimeSession:
                way = RECIPES[recipe]
                quantized = quantize_graph(
                    model,
                    calibration.batches,
                    operators=COMPUTING,
                    exclude=_products(model) if way.keep_products else (),
                    ranges=way.ranges,
                    symmetric=True,
                )
                graphs[recipe] = quantized if finish is None else finish(quantized)
                onnx.save(graphs[recipe], path)
                draft = _draft(path, network)
                return OnnxRuntimeSession(draft, threads=available_threads(), precision="fp32", fuse_quantized=False)

            return open_session

        names = _suitable(model) if request.quantization.recipe == "auto" else (request.quantization.recipe,)
        index, trials = choose(
            [Recipe(name, opener(name)) for name in names],
            PyTorchSession(network),
            calibration.held_out,
            evaluate=request.evaluate,
            time_limit_s=request.quantization.time_limit_s,
        )
    chosen = trials[index].recipe
    return graphs[chosen], QuantizationReport(recipe=chosen, trials=trials, calibration=calibration.record)


def _suitable(model: onnx.ModelProto) -> tuple[str, ...]:
    if _products(model):
        return ("products", "weighted", "products-percentile")
    return ("products", "products-percentile")


def _products(model: onnx.ModelProto) -> list[str]:
    """Nodes that multiply activations with each other."""
    known = constants(model)
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and not known.keys() & set(node.input)]


def _draft(path: Path, network: Network) -> Artifact:
    return Artifact(
        path=path,
        files=(),
        format="onnx",
        precision="int8",
        signature=network.signature,
        options={},
        versions={},
        verified_on="nothing yet",
        parity=None,
    )

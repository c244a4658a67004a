"""Int8 for TensorRT: symmetric Q/DQ pairs around convolutions and matrix products; all else is fused as it is."""

from collections.abc import Callable

import onnx

from exporters.capture import capture
from exporters.exporter import Request
from exporters.network import Network
from exporters.quantization.onnx import left_in_float, quantize_by_search
from exporters.quantization.onnx_fold import store_as_integers
from exporters.quantization.recipes import contents
from exporters.quantization.report import QuantizationReport
from exporters.sessions.openvino import OpenVINOSession


def quantize(
    model: onnx.ModelProto,
    network: Network,
    request: Request,
    *,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None,
) -> tuple[onnx.ModelProto, QuantizationReport]:
    """Quantise a graph by the best of the recipes that suit it, or take the ranges with which it was trained.

    Args:
        model: The graph in float32; it may be changed.
        network: What it was made from.
        request: Real inputs, options and the task's metric.
        finish: What else is done to a quantised graph, such as a cast of the rest to float16.

    Returns:
        The finished graph, and what was done.

    Raises:
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met.
        InputError: If the options do not fit the network.
    """
    if request.calibration is None:
        trained = store_as_integers(model)
        report = QuantizationReport(recipe="quantisation-aware training", left_in_float=left_in_float(trained))
        return trained if finish is None else finish(trained), report
    # Attention's own products may lose more in int8 than they gain.
    products = contents(capture(network)).products
    recipes = ("products", "weighted", "products-percentile") if products else ("products", "products-percentile")
    # OpenVINO computes in int8 between the pairs, as an engine does; ONNX Runtime computes such graphs pair by pair.
    return quantize_by_search(
        model, network, request, recipes=recipes, symmetric=True, open_session=OpenVINOSession, finish=finish
    )

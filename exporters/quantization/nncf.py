"""Int8 for OpenVINO by NNCF: recipes for convolutions and for attention, which need opposite ones."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.capture import capture
from exporters.errors import ConversionError
from exporters.exporter import Request
from exporters.network import Network
from exporters.openvino_audit import COMPUTING, executed_types, float_layers, layer_of
from exporters.openvino_names import name_new_operations
from exporters.quantization.recipes import GraphContents, contents
from exporters.quantization.report import QuantizationReport
from exporters.quantization.search import Runtime, draft, search
from exporters.quiet import errors_only, no_progress_bars, no_telemetry
from exporters.sessions.openvino import OpenVINOSession
from exporters.threads import available_threads

with no_telemetry(), errors_only("torch", "nncf"):
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

_OFF = -1.0
# What NNCF quantises beside layers, and what it carries a quantiser past.
_BETWEEN = [
    "AdaptiveAvgPool",
    "Add",
    "AvgPool",
    "BatchNormInference",
    "Clamp",
    "Concat",
    "Divide",
    "GroupNormalization",
    "Interpolate",
    "MVN",
    "Maximum",
    "Minimum",
    "Multiply",
    "NormalizeL2",
    "Power",
    "ReduceMean",
    "Relu",
    "Sigmoid",
    "SquaredDifference",
    "Subtract",
]
_EXTREMES = RangeEstimatorParameters(
    min=StatisticsCollectorParameters(statistics_type=StatisticsType.MIN, aggregator_type=AggregatorType.MIN),
    max=StatisticsCollectorParameters(statistics_type=StatisticsType.MAX, aggregator_type=AggregatorType.MAX),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Arguments of ``nncf.quantize``."""

    symmetric: bool = True
    transformer: bool = False
    smooth: bool = True
    keep_products: bool = False
    layers_only: bool = False
    extremes: bool = False


RECIPES: Mapping[str, _Way] = {
    "default": _Way(),
    "mixed": _Way(symmetric=False),
    "extremes": _Way(symmetric=False, extremes=True),
    "layers": _Way(symmetric=False, extremes=True, layers_only=True),
    "transformer": _Way(transformer=True),
    "transformer-unsmoothed": _Way(transformer=True, smooth=False),
    "transformer-weighted": _Way(transformer=True, keep_products=True),
}
"""``default``: symmetric activations; ``mixed``: asymmetric ones where they take both signs; ``extremes``: the
same over the whole range of all samples, where NNCF takes the mean of their ranges; ``layers``: the same for what goes
into layers, with sums and activations between them in float; ``transformer``: NNCF's scheme for attention, with
SmoothQuant or without; ``weighted``: attention's own products stay in float."""


_CONVOLUTIONAL = ("default", "mixed", "extremes")


def quantize_for_openvino(
    model: openvino.Model, network: Network, request: Request
) -> tuple[openvino.Model, QuantizationReport]:
    """Quantise a model by the best of the recipes that suit it.

    Args:
        model: The model in float32, its operations named by `exporters.openvino_names.carry_names`.
        network: What it was made from.
        request: Real inputs, options and the task's metric.

    Returns:
        The model with FakeQuantize operations and weights of type int8, and what was tried.

    Raises:
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met.
        InputError: If the options do not fit the network.
    """
    found = contents(capture(network))
    batches = request.calibration.batches if request.calibration is not None else ()
    dataset = nncf.Dataset([dict(batch) for batch in batches])

    def quantize(recipe: str, kept: frozenset[str]) -> openvino.Model:
        way = RECIPES[recipe]
        layers = kept | frozenset(found.products if way.keep_products else ())
        return _quantize(model, dataset, way, ignored=_names(model, layers), count=len(batches))

    with tempfile.TemporaryDirectory() as folder:

        def open_session(quantized: openvino.Model) -> OpenVINOSession:
            path = Path(folder, "candidate.xml")
            openvino.save_model(quantized, path, compress_to_fp16=False)
            return OpenVINOSession(
                draft(path, "openvino", network.signature), threads=available_threads(), precision="fp32"
            )

        runtime = Runtime(
            recipes=_suitable(found),
            quantize=quantize,
            open_session=open_session,
            left_in_float=left_in_float,
            fallbacks=dict.fromkeys(_CONVOLUTIONAL, "layers"),
        )
        return search(network, request, runtime)


def left_in_float(model: openvino.Model) -> tuple[str, ...]:
    """Layers that the processor computes in floating point, in order."""
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float_layers(executed_types(model, compiled))


def _quantize(model: openvino.Model, dataset: Any, way: _Way, *, ignored: list[str], count: int) -> openvino.Model:
    advanced = AdvancedQuantizationParameters()
    if not way.smooth:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(convolution=_OFF, matmul=_OFF)
    if way.extremes:
        advanced.activations_range_estimator_params = _EXTREMES
    try:
        with errors_only("nncf"), no_progress_bars():
            quantized = nncf.quantize(
                model,
                dataset,
                preset=nncf.QuantizationPreset.PERFORMANCE if way.symmetric else nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=count,
                model_type=nncf.ModelType.TRANSFORMER if way.transformer else None,
                ignored_scope=nncf.IgnoredScope(
                    names=ignored, types=_BETWEEN if way.layers_only else [], validate=False
                ),
                advanced_parameters=advanced,
            )
    except (RuntimeError, ValueError, nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError) as error:
        raise ConversionError(f"`model` must be quantisable by NNCF, but it says: {error}") from error
    name_new_operations(quantized)
    return quantized


def _names(model: openvino.Model, layers: frozenset[str]) -> list[str]:
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in COMPUTING and layer_of(node.get_friendly_name()) in layers
    ]


def _suitable(found: GraphContents) -> tuple[str, ...]:
    transformer = ("transformer", "transformer-unsmoothed", *(("transformer-weighted",) if found.products else ()))
    if found.mixed:
        return (*transformer, *_CONVOLUTIONAL)
    return transformer if found.token_mixing else _CONVOLUTIONAL

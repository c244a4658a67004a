"""ONNX Runtime's quantiser: a float32 graph and real inputs in, a graph with Q/DQ pairs out."""

import contextlib
import io
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from exporters.errors import ConversionError, InputError
from exporters.quiet import errors_only

Ranges = Literal["minmax", "percentile"]
"""Whether the range of an activation holds all values that were seen, or 99.99 % of them."""

_METHODS: Mapping[Ranges, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}


def quantize_graph(
    model: onnx.ModelProto,
    batches: Sequence[Mapping[str, np.ndarray]],
    *,
    operators: Collection[str],
    exclude: Collection[str] = (),
    ranges: Ranges = "minmax",
    symmetric: bool,
    cache: Path | None = None,
) -> onnx.ModelProto:
    """Quantise a graph to int8, weights per channel and activations per tensor.

    Args:
        model: The graph, in float32; it is left as it is.
        batches: Real inputs by name, each of a shape that the graph takes.
        operators: Types of the operators to quantise, such as ``"Conv"``.
        exclude: Names of nodes that stay in float32 all the same.
        ranges: How ranges follow from the values seen.
        symmetric: ``True`` for what TensorRT takes: activations of type int8 with zero point 0, and biases in float32.
            ``False`` for what ONNX Runtime is fast with on a CPU: activations of type uint8 with a zero point, and
            biases of type int32.
        cache: Folder in which the ranges of the graph are kept, to quantise it again with other nodes excluded;
            ``None`` runs the batches every time.

    Returns:
        The quantised graph; ONNX Runtime may have renamed, merged or removed nodes.

    Raises:
        ConversionError: If ONNX Runtime cannot quantise the graph.
        InputError: If there is no batch.
    """
    if not batches:
        raise InputError("`batches` must hold at least one batch, got none; give calibration data.")
    options = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not symmetric,
        "CalibPercentile": 99.99,
        # Its default would spend half of an unsigned type on values that a ReLU never makes.
        "CalibTensorRangeSymmetric": symmetric,
        # Batch by batch: otherwise every activation of every batch is held in memory.
        "CalibStridedMinMax": 1,
    }
    # It prints its progress.
    kept = cache and cache / f"{ranges}-{symmetric}-{'-'.join(operators)}.json"
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, errors_only("root"), quiet:
        path = Path(folder, "quantized.onnx")
        try:
            quantize_static(
                onnx.ModelProto.FromString(model.SerializeToString()),
                path,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(exclude),
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=_METHODS[ranges],
                calibration_cache_path=kept,
                extra_options=options,
            )
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ConversionError(
                f"the graph must be quantisable by ONNX Runtime with {', '.join(operators)} and {ranges} ranges, "
                f"but it raised {type(error).__name__}: {error}"
            ) from error
        quantized = onnx.load(path)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    return quantized


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches in the way in which ONNX Runtime asks for them."""

    def __init__(self, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._batches = batches
        self.set_range(0, len(batches))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches."""
        self._left = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; ``None`` after the last."""
        batch = next(self._left, None)
        return None if batch is None else dict(batch)

"""int8 for ExecuTorch: recipes of PyTorch's own graph quantiser, tried and compared in PyTorch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from exporters.capture import capture, is_quantized, module_path
from exporters.errors import ConversionError
from exporters.exporter import Request
from exporters.network import TORCH_ERRORS, Network, PositionalNetwork
from exporters.quantization.report import QuantizationReport
from exporters.quantization.selection import Recipe, choose
from exporters.quiet import errors_only, root_logger_kept
from exporters.session import Session
from exporters.sessions.pytorch import PyTorchSession

with root_logger_kept(), errors_only("torch.utils._pytree"):
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import (
        OP_TO_ANNOTATOR,
        _convert_scalars_to_attrs,
        propagate_annotation,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import Quantizer

AS_TRAINED = "as trained"
_CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")
_PRODUCTS = ("scaled_dot_product_attention", "matmul", "bmm")

# Patterns in the order in which they claim nodes: with their activation first. Those of batch norms are left out:
# prepare_pt2e folds batch norms into convolutions, and looking for them costs seconds.
_CONVOLUTION_PATTERNS = ("conv_relu", "conv_transpose_relu", "conv", "conv_transpose")
_LINEAR_PATTERNS = ("linear_relu", "linear")
_OTHER_PATTERNS = ("adaptive_avg_pool2d", "add_relu", "add", "mul_relu", "mul", "cat")


def quantize(network: Network, request: Request) -> tuple[Network, QuantizationReport]:
    """Quantise a network to int8 by the recipe whose outputs stay closest.

    Every recipe has symmetric weights per output channel. ``static`` fixes the ranges of activations by calibration and
    takes sums, products and concatenations along; ``static-layers`` does so for convolutions and linear layers only;
    ``dynamic-linear`` measures the input of every linear layer at run time and keeps convolutions static. Products of
    activations (attention) stay in floating point: XNNPACK has none in int8.

    Args:
        network: The network in floating point, or one that came with its ranges from training.
        request: Calibration data and options.

    Returns:
        The quantised network, and what was tried.

    Raises:
        ConversionError: If no recipe works, a recipe is unknown, or ``keep_float`` names a layer that is not there.
    """
    if request.calibration is None and is_quantized(network):
        left = tuple(_left_in_float(capture(network).graph))
        return network, QuantizationReport(recipe=AS_TRAINED, left_in_float=left)
    if request.calibration is None:
        raise ConversionError("`calibration` must be given for precision='int8', got None.")
    graph = capture(network).graph
    names = _recipes(graph, request.quantization.recipe)
    _check_keep_float(graph, request.quantization.keep_float)
    made: dict[str, Network] = {}
    best, trials = choose(
        [Recipe(name, partial(_open, network, name, request, made)) for name in names],
        PyTorchSession(network),
        request.calibration.held_out,
        evaluate=request.evaluate,
        time_limit_s=request.quantization.time_limit_s,
    )
    quantized = made[names[best]]
    report = QuantizationReport(
        recipe=names[best],
        trials=trials,
        calibration=request.calibration.record,
        left_in_float=tuple(_left_in_float(quantized.module.module.graph)),
    )
    return quantized, report


def _recipes(graph: fx.Graph, wanted: str) -> list[str]:
    if wanted != "auto":
        if wanted not in _RECIPES:
            raise ConversionError(
                f"`recipe` must be 'auto' or one of {', '.join(map(repr, _RECIPES))} for ExecuTorch, got {wanted!r}."
            )
        return [wanted]
    attention = any(_kind(node) in _PRODUCTS for node in graph.nodes)
    return ["dynamic-linear", "static-layers", "static"] if attention else ["static", "static-layers"]


def _open(network: Network, recipe: str, request: Request, made: dict[str, Network]) -> Session:
    """The recipe's network as PyTorch computes it: XNNPACK computes the same from it."""
    if request.calibration is None:
        raise ConversionError("`calibration` must be given for precision='int8', got None.")
    quantizer = _PatternQuantizer(_RECIPES[recipe], request.quantization.keep_float)
    try:
        with errors_only(), torch.no_grad():
            prepared = prepare_pt2e(capture(network).module(check_guards=False), quantizer)
            for batch in request.calibration.batches:
                prepared(*_tensors(network, batch))
            module = convert_pt2e(prepared)
    except TORCH_ERRORS as error:
        raise ConversionError(f"recipe {recipe!r} failed: {type(error).__name__}: {error}") from error
    made[recipe] = replace(network, module=PositionalNetwork(module))
    return PyTorchSession(made[recipe])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patterns:
    """What a recipe quantises.

    Args:
        static: Patterns whose activations have ranges from calibration.
        dynamic: Patterns whose inputs are measured at run time.
    """

    static: tuple[str, ...]
    dynamic: tuple[str, ...] = ()


_RECIPES: Mapping[str, _Patterns] = {
    "static": _Patterns(static=_LINEAR_PATTERNS + _CONVOLUTION_PATTERNS + _OTHER_PATTERNS),
    "static-layers": _Patterns(static=_LINEAR_PATTERNS + _CONVOLUTION_PATTERNS),
    "dynamic-linear": _Patterns(static=_CONVOLUTION_PATTERNS, dynamic=("linear",)),
}


class _PatternQuantizer(Quantizer):  # type: ignore[misc]
    """Marks the nodes of a recipe's patterns, except those in layers to keep."""

    def __init__(self, patterns: _Patterns, keep_float: Sequence[str]) -> None:
        self._patterns = patterns
        self._keep_float = keep_float

    def transform_for_annotation(self, model: fx.GraphModule) -> Any:
        """Make scalar operands tensors, which have ranges."""
        return _convert_scalars_to_attrs(model)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Mark every node that is to be quantised."""
        for names, is_dynamic in ((self._patterns.static, False), (self._patterns.dynamic, True)):
            config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=is_dynamic)
            for name in names:
                OP_TO_ANNOTATOR[name](model, config, self._wanted)
        propagate_annotation(model)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check."""

    def _wanted(self, node: fx.Node) -> bool:
        return not _is_in(module_path(node), self._keep_float)


def _tensors(network: Network, batch: Mapping[str, np.ndarray]) -> Iterator[Tensor]:
    return (torch.from_numpy(np.require(batch[spec.name], requirements="W")) for spec in network.signature.inputs)


def _check_keep_float(graph: fx.Graph, keep_float: Sequence[str]) -> None:
    paths = {module_path(node) for node in graph.nodes}
    unknown = [name for name in keep_float if not any(_is_in(path, [name]) for path in paths)]
    if unknown:
        known = ", ".join(sorted(path for path in paths if path))
        raise ConversionError(f"`keep_float` must name layers of the network, got {unknown}; it has {known}.")


def _left_in_float(graph: Any) -> Iterator[str]:
    """Paths of layers whose arithmetic is in floating point, each once."""
    found = {
        module_path(node) or node.name: None
        for node in graph.nodes
        if _kind(node) in _PRODUCTS or (_kind(node) in (*_CONVOLUTIONS, "linear") and not _has_quantized_weight(node))
    }
    return iter(found)


def _has_quantized_weight(node: fx.Node) -> bool:
    weight: Any = node.args[1]
    return isinstance(weight, fx.Node) and weight.op == "call_function" and "dequantize" in str(weight.target)


def _kind(node: fx.Node) -> str:
    """Name of the ATen operator, without its overload; empty for any other node."""
    namespace, _, name = str(node.target).partition(".")
    return name.partition(".")[0] if namespace == "aten" else ""


def _is_in(path: str, names: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in names)

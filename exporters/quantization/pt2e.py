"""int8 for ExecuTorch: recipes of PyTorch's own graph quantiser, tried and compared in PyTorch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from exporters.capture import capture, is_quantized
from exporters.errors import ConversionError
from exporters.exporter import Request
from exporters.layers import layer_name
from exporters.network import TORCH_ERRORS, Network, PositionalNetwork
from exporters.quantization.recipes import contents
from exporters.quantization.report import QuantizationReport
from exporters.quantization.search import Runtime, search
from exporters.quiet import errors_only, root_logger_kept
from exporters.sessions.pytorch import PyTorchSession

with root_logger_kept(), errors_only("torch.utils._pytree"):
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import get_symmetric_quantization_config
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import (
        OP_TO_ANNOTATOR,
        _is_share_obs_or_fq_op,
        propagate_annotation,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer
    from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

AS_TRAINED = "as trained"
_CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d")
_PRODUCTS = ("scaled_dot_product_attention", "matmul", "bmm")

# Patterns in the order in which they claim nodes: with their activation first. Those of batch norms are left out:
# prepare_pt2e folds batch norms into convolutions, and looking for them costs seconds.
_CONVOLUTION_PATTERNS = ("conv_relu", "conv_transpose_relu", "conv", "conv_transpose")
_LINEAR_PATTERNS = ("linear_relu", "linear")
_OTHER_PATTERNS = ("adaptive_avg_pool2d", "add_relu", "add", "mul_relu", "mul")
_WITH_SCALARS = (torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor)
_JOIN = torch.ops.aten.cat.default
_BATCH_NORM = torch.ops.aten.batch_norm.default


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
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met.
        InputError: If a recipe is unknown, or ``keep_float`` names a layer that is not there.
    """
    if request.calibration is None and is_quantized(network):
        left = tuple(_left_in_float(capture(network).graph))
        return network, QuantizationReport(recipe=AS_TRAINED, left_in_float=left)
    found = contents(capture(network))
    attention = found.token_mixing or bool(found.products)
    runtime = Runtime(
        recipes=("dynamic-linear", "static-layers", "static") if attention else ("static", "static-layers"),
        quantize=lambda recipe, kept: _quantized(network, request, _RECIPES[recipe], kept),
        open_session=PyTorchSession,
        left_in_float=lambda model: tuple(_left_in_float(model.module.module.graph)),
        fallbacks={"static": "static-layers"},
    )
    return search(network, request, runtime)


def _quantized(network: Network, request: Request, patterns: "_Patterns", kept: frozenset[str]) -> Network:
    """The network as PyTorch computes it with a recipe's rounding: XNNPACK computes the same from it."""
    quantizer = _PatternQuantizer(patterns, (*kept, *request.quantization.keep_float))
    batches = request.calibration.batches if request.calibration is not None else ()
    try:
        with errors_only(), torch.no_grad():
            prepared = prepare_pt2e(capture(network).module(check_guards=False), quantizer)
            for batch in batches:
                prepared(*_tensors(network, batch))
            _swap_targets(prepared, {_BATCH_NORM: _batch_norm})
            module = convert_pt2e(prepared)
            _swap_targets(module, {_batch_norm: _BATCH_NORM})
    except TORCH_ERRORS as error:
        raise ConversionError(f"PyTorch's quantiser failed: {type(error).__name__}: {error}") from error
    return replace(network, module=PositionalNetwork(module))


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

    def __init__(self, patterns: _Patterns, kept: Sequence[str]) -> None:
        self._patterns = patterns
        self._kept = kept

    def transform_for_annotation(self, model: fx.GraphModule) -> Any:
        """Make scalar operands of floating-point sums and products tensors, which have ranges; indices stay whole."""
        for node in model.graph.nodes:
            if node.target not in _WITH_SCALARS or not node.meta["val"].is_floating_point():
                continue
            for place, value in enumerate(node.args):
                if isinstance(value, int | float):
                    node.update_arg(place, _as_buffer(model, node, float(value)))
        model.recompile()
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Mark every node that is to be quantised."""
        for names, is_dynamic in ((self._patterns.static, False), (self._patterns.dynamic, True)):
            config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=is_dynamic)
            for name in names:
                OP_TO_ANNOTATOR[name](model, config, self._wanted)
        _mark_joins(model)
        propagate_annotation(model)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing to check."""

    def _wanted(self, node: fx.Node) -> bool:
        path = layer_name(node)
        return not any(path == name or path.startswith(f"{name}.") for name in self._kept)


def _as_buffer(model: fx.GraphModule, node: fx.Node, value: float) -> fx.Node:
    name = f"scalar_{len(dict(model.named_buffers()))}"
    tensor = torch.tensor(value)
    model.register_buffer(name, tensor)
    with model.graph.inserting_before(node):
        buffer = model.graph.get_attr(name)
    buffer.meta["val"] = node.meta["val"].fake_mode.from_tensor(tensor, static_shapes=True)
    return buffer


def _mark_joins(model: fx.GraphModule) -> None:
    """Give the inputs of every concatenation of an int8 tensor one scale; others stay in floating point.

    XNNPACK joins tensors of equal scales only, and takes a concatenation between int8 layers for one in int8.
    """
    rounded: set[fx.Node] = set()
    for node in model.graph.nodes:
        is_join = node.target is _JOIN
        carries = is_join or _is_share_obs_or_fq_op(node.target)
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        if (annotation and annotation.output_qspec) or (carries and rounded.intersection(node.all_input_nodes)):
            rounded.add(node)
        elif is_join:
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(_annotated=True)
    OP_TO_ANNOTATOR["cat"](model, get_symmetric_quantization_config(is_per_channel=True))


def _batch_norm(*arguments: Any) -> Any:
    return _BATCH_NORM(*arguments)


def _swap_targets(model: fx.GraphModule, targets: Mapping[Any, Any]) -> None:
    """Call other functions in a graph.

    A batch norm that is not seen is not looked for behind convolutions, which takes half a minute: those there were
    folded before, and of training, which alone needs that search, none is left.
    """
    for node in model.graph.nodes:
        node.target = targets.get(node.target, node.target)
    model.recompile()


def _tensors(network: Network, batch: Mapping[str, np.ndarray]) -> Iterator[Tensor]:
    return (torch.from_numpy(np.require(batch[spec.name], requirements="W")) for spec in network.signature.inputs)


def _left_in_float(graph: Any) -> Iterator[str]:
    """Paths of layers whose arithmetic is in floating point, each once."""
    found = {
        layer_name(node): None
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

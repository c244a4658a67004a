"""Int8 after training, in PyTorch: for runtimes that take explicit integers and bring no quantiser that works."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from exporters.capture import capture, is_quantized
from exporters.exporter import Request
from exporters.network import Network, PositionalNetwork
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat
from exporters.quantization.layers import has_integer_weight
from exporters.quantization.recipes import contents
from exporters.quantization.report import QuantizationReport
from exporters.quantization.search import Runtime, search
from exporters.sessions.pytorch import PyTorchSession

RECIPES: Mapping[str, FakeQuantization] = {
    "minmax": FakeQuantization(momentum=None),
    "percentile": FakeQuantization(percentile=99.99),
    "layers": FakeQuantization(momentum=None, outputs=False),
}
"""Weights have a scale per output channel, activations one per tensor: ``minmax`` from the extremes of all calibration
inputs, ``percentile`` from the mean over batches of the 99.99th percentile; ``layers`` is ``minmax`` for what goes into
layers only. Attention's own products stay in float."""

_AS_TRAINED = "quantisation-aware training"


def quantize(network: Network, request: Request) -> tuple[Network, QuantizationReport]:
    """Quantise the convolutions and linear layers of a network by the recipe that comes closest.

    Args:
        network: The network in floating point, or one that came with its ranges from training.
        request: Real inputs, options and the task's metric.

    Returns:
        The network with explicit integers in its capture, and what was tried.

    Raises:
        ConversionError: If no recipe can be applied, or ``max_drop`` was not met.
        InputError: If the options do not fit the network.
    """
    if request.calibration is None and is_quantized(network):
        return network, QuantizationReport(recipe=_AS_TRAINED)
    found = contents(capture(network))
    layers = frozenset((*found.convolutions, *found.linear))
    runtime = Runtime(
        recipes=("minmax", "percentile"),
        quantize=lambda recipe, kept: _quantized(network, request, RECIPES[recipe], kept & layers),
        open_session=PyTorchSession,
        left_in_float=lambda model: tuple(sorted(layers - _rounded(model))),
        fallbacks={"minmax": "layers", "percentile": "layers"},
    )
    return search(network, request, runtime)


def _quantized(network: Network, request: Request, options: FakeQuantization, kept: frozenset[str]) -> Network:
    module = copy.deepcopy(network.module.module)
    names = [spec.name for spec in network.signature.inputs]
    keywords = network.module.keywords

    def arguments(tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...] | Mapping[str, Tensor]:
        return tensors if keywords else tuple(tensors[name] for name in names)

    example = arguments(dict(zip(names, network.example, strict=True)))
    quantization = prepare_qat(module, example, replace(options, keep_float=tuple(sorted(kept))))
    batches = request.calibration.batches if request.calibration is not None else ()
    calibrate(
        module, [arguments({name: torch.from_numpy(np.array(batch[name])) for name in names}) for batch in batches]
    )
    quantization.freeze()
    return replace(network, module=PositionalNetwork(module, keywords, taps=network.module.taps).eval())


def _rounded(network: Network) -> frozenset[str]:
    """Layers whose weights are integers."""
    return frozenset(path for path, module in network.module.module.named_modules() if has_integer_weight(module))

"""Fake quantisation of a network in place: its modules, names, hooks and checkpoints stay what they are."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from exporters.capture import capture
from exporters.errors import QuantizationError
from exporters.example import ExampleInputs
from exporters.network import prepare
from exporters.quantization.attachment import FakeQuantization, Quantization, quantization_of
from exporters.quantization.flow import Place, find_places
from exporters.quantization.layers import LayerQuantization
from exporters.quantization.quantizers import ActivationQuantizer, WeightQuantizer

__all__ = ["FakeQuantization", "Quantization", "calibrate", "prepare_qat", "quantization_of", "strip_qat"]

CHILD = "fake_quantization"


def prepare_qat(
    model: nn.Module,
    example_inputs: ExampleInputs,
    options: FakeQuantization | None = None,
    *,
    holder: nn.Module | None = None,
) -> Quantization:
    """Fake-quantise the convolutions and linear layers of a network, in place.

    The tree of modules, their classes, names, hooks, parameters and state dict stay, so that taps, optimisers and
    checkpoints do not notice. A capture of a copy shows where to quantise: the input and the weight of every layer, and
    its output where something else than a quantised layer reads it, behind the batch norm if there is one. Products
    inside attention, normalisations and activations stay in float.

    Nothing is rounded until `Quantization.set_phase` says so: train a while with rounding, or call `calibrate`. Then
    ``exporters.export(model, ..., precision="int8")`` needs no calibration.

    Args:
        model: The network; `torch.export` must be able to capture it.
        example_inputs: As for `exporters.export`.
        options: How to quantise.
        holder: The module that gets the quantisers as a child, through which they follow it to its device and are seen
            by DDP; ``None`` for ``model`` itself.

    Returns:
        The handle of the quantisers, which is that child.

    Raises:
        CaptureError: If the network cannot be captured.
        QuantizationError: If it is quantised already, ``keep_float`` matches no layer, or nothing can be quantised.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> names = list(net.state_dict())
        >>> quantization = prepare_qat(net, torch.randn(2, 3, 8, 8))
        >>> [path for path, _ in quantization.each()], list(net.state_dict()) == names
        (['0', '4'], True)
        >>> calibrate(net, [torch.randn(8, 3, 8, 8)])
        >>> strip_qat(net)
    """
    options = options or FakeQuantization()
    if quantization_of(model) is not None:
        raise QuantizationError("`model` is fake-quantised already: call strip_qat first.")
    network = prepare(model, example_inputs)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        program = capture(network)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    places, left = find_places(model, program, "module.", options.keeps)
    _check(places, left, options)
    modules = dict(model.named_modules())
    layers = {place.path: _attach(modules, place, options) for place in places}
    quantization = Quantization(options, layers, left)
    quantization.to(next(model.parameters()).device)
    quantization.start_scales()
    (model if holder is None else holder).add_module(CHILD, quantization)
    return quantization


def strip_qat(model: nn.Module) -> None:
    """Give a network its own code back, with the weights it has by now; does nothing to a plain one."""
    quantization = quantization_of(model)
    if quantization is None:
        return
    for _, layer in quantization.each():
        layer.detach()
    for module in list(model.modules()):
        if getattr(module, CHILD, None) is quantization:
            delattr(module, CHILD)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Measure the ranges of activations on data, without training; then round.

    Args:
        model: A network from `prepare_qat`. It runs in evaluation mode and gets its modes back.
        batches: Inputs: a tensor, a tuple of positional or a mapping of keyword arguments each.

    Raises:
        QuantizationError: If the network is not fake-quantised, or there is no batch.
    """
    quantization = quantization_of(model)
    if quantization is None:
        raise QuantizationError(f"`model` must come from prepare_qat, got a plain {type(model).__name__}.")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    quantization.set_phase(rounding=False, observing="always")
    for batch in batches:
        if isinstance(batch, Mapping):
            model(**batch)
        else:
            model(*batch if isinstance(batch, tuple | list) else (batch,))
    for module, mode in modes.items():
        module.training = mode
    if quantization.unseen:
        raise QuantizationError("`batches` must hold at least one batch, got none.")
    quantization.set_phase(rounding=True, observing="never")


def _check(places: tuple[Place, ...], left: tuple[str, ...], options: FakeQuantization) -> None:
    for pattern in options.keep_float:
        if not any(options.keeps(path, (pattern,)) for path in left):
            known = ", ".join(repr(place.path) for place in places[:5])
            raise QuantizationError(f"`keep_float` names no layer with {pattern!r}; the first layers are {known}.")
    if not places:
        raise QuantizationError("`model` must have a convolution or linear layer to quantise, got none.")


def _attach(modules: Mapping[str, nn.Module], place: Place, options: FakeQuantization) -> LayerQuantization:
    def activation(*, non_negative: bool = False) -> ActivationQuantizer:
        return ActivationQuantizer(
            kind=options.activations,
            momentum=options.momentum,
            percentile=options.percentile,
            learned=options.learned_scales,
            non_negative=non_negative,
        )

    layer = modules[place.path]
    channels = len(layer.get_parameter("weight"))
    return LayerQuantization(
        layer,
        None if place.norm is None else modules[place.norm],
        input=activation(),
        weight=WeightQuantizer(channels, bits=options.weight_bits, learned=options.learned_scales),
        output=activation(non_negative=place.non_negative) if place.output and options.outputs else None,
    )

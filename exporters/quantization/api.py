"""What users call of this package; it loads PyTorch when it is called."""

import importlib
from typing import TYPE_CHECKING, Any

from exporters.quantization.calibration import Calibration
from exporters.quantization.report import LayerSensitivity

if TYPE_CHECKING:
    from torch import nn

    from exporters.example import ExampleInputs


def sensitivity(
    model: "nn.Module", example_inputs: "ExampleInputs", data: Any, *, samples: int = 32, seed: int = 0
) -> tuple[LayerSensitivity, ...]:
    """Sensitivity of every convolution, linear layer and product of activations to int8, most sensitive first.

    One layer at a time is computed with rounded weights (symmetric, per output channel) and rounded inputs (asymmetric,
    per tensor, over the range of four fifths of the samples), all others in float32; the outputs are compared on the
    remaining samples. Only what follows the layer is computed again, so the whole costs about half a forward pass per
    layer and sample.

    Args:
        model: The network.
        example_inputs: As in `exporters.export`.
        data: Real inputs, as for the ``calibration`` of `exporters.export`.
        samples: Largest number of samples.
        seed: Seed by which they are chosen.

    Returns:
        One entry per layer.

    Raises:
        CaptureError: If the network cannot be captured.
        InputError: If the data do not fit the network.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> found = sensitivity(net, torch.randn(1, 4), torch.randn(20, 4))
        >>> sorted(entry.layer for entry in found)
        ['0', '2']
    """
    network = importlib.import_module("exporters.network").prepare(model, example_inputs)
    calibration = Calibration.from_data(data, network.signature, samples=samples, seed=seed)
    measured: tuple[LayerSensitivity, ...] = importlib.import_module(
        "exporters.quantization.layer_errors"
    ).layer_sensitivities(network, calibration)
    return measured

"""A network behind an image: pixels in, normalised in the graph."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from exporters.coreml.options import ImageInput
from exporters.errors import ConversionError
from exporters.network import Network, PositionalNetwork

_PIXELS = (0.0, 255.0)


class FromPixels(nn.Module):
    """A network whose input ``position`` is pixels between 0 and 255.

    Args:
        network: The network that takes normalised values.
        image: The normalisation.
        position: Index of the input.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, network: PositionalNetwork, image: ImageInput, position: int) -> None:
        super().__init__()
        self.network = network
        self.position = position
        std = torch.tensor(image.std or (1.0,) * image.channels, dtype=torch.float64)
        mean = torch.tensor(image.mean or (0.0,) * image.channels, dtype=torch.float64)
        self.register_buffer("factor", (image.scale / std).float().reshape(1, -1, 1, 1))
        self.register_buffer("offset", (mean / std).float().reshape(1, -1, 1, 1))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The network's outputs."""
        values = list(inputs)
        values[self.position] = values[self.position] * self.factor - self.offset
        outputs: tuple[Tensor, ...] = self.network(*values)
        return outputs

    def pixels(self, values: Tensor) -> Tensor:
        """The pixels whose normalised values are nearest to ``values``."""
        return ((values + self.offset) / self.factor).round().clamp(*_PIXELS)


def from_pixels(network: Network, image: ImageInput) -> Network:
    """The network with the normalisation of an image in front, its examples turned into pixels.

    Args:
        network: The network that takes normalised values.
        image: Input and normalisation.

    Returns:
        A network whose signature says pixels from 0 to 255.

    Raises:
        ConversionError: If there is no such input, or it is not one image of that many channels and of a fixed size.
    """
    names = [spec.name for spec in network.signature.inputs]
    if image.name not in names:
        raise ConversionError(f"`image` must name one of the inputs {names}, got {image.name!r}.")
    position = names.index(image.name)
    spec = network.signature.inputs[position]
    fits = len(spec.shape) == 4 and spec.shape[:2] == (1, image.channels) and spec.dtype == "float32"
    if not fits or any(isinstance(size, str) for size in spec.shape):
        raise ConversionError(
            f"`image` must be a float32 input of fixed shape (1, {image.channels}, height, width) for {image.layout}, "
            f"got {spec.dtype} of shape {spec.shape}."
        )
    module = FromPixels(network.module, image, position).eval()
    inputs = list(network.signature.inputs)
    inputs[position] = replace(spec, value_range=_PIXELS)
    example = list(network.example)
    example[position] = module.pixels(example[position])
    return replace(
        network,
        module=PositionalNetwork(module).eval(),
        signature=replace(network.signature, inputs=tuple(inputs)),
        example=tuple(example),
        samples=tuple(
            {**sample, image.name: np.asarray(module.pixels(torch.from_numpy(np.array(sample[image.name]))))}
            for sample in network.samples
        ),
    )

"""Preprocessing as modules of convolutions, matrix products and arithmetic, which every runtime converts."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exporters.preprocessing.content import Preprocessing
from exporters.preprocessing.image import ImagePreprocessing
from exporters.preprocessing.logmel import LogMelPreprocessing


class ImageArithmetic(nn.Module):
    """An image of the caller in, an input of the network out.

    Args:
        options: What to do.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, options: ImagePreprocessing) -> None:
        super().__init__()
        self.channels_last = options.layout == "NHWC"
        self.swaps_colors = options.swaps_colors
        std = torch.tensor(options.std, dtype=torch.float64).reshape(1, -1, 1, 1)
        mean = torch.tensor(options.mean, dtype=torch.float64).reshape(1, -1, 1, 1)
        self.register_buffer("factor", (options.scale / std).float())
        self.register_buffer("shift", (mean / std).float())

    def forward(self, image: Tensor) -> Tensor:
        """The image as ``(N, C, H, W)``, in the type of the network."""
        if self.channels_last:
            image = image.permute(0, 3, 1, 2)
        image = image.to(self.factor.dtype)
        if self.swaps_colors:
            image = torch.cat(torch.chunk(image, 3, dim=1)[::-1], dim=1)
        return image * self.factor - self.shift


class LogMel(nn.Module):
    """A waveform in, log-mel features out.

    Args:
        options: What to compute.
    """

    transform: Tensor
    filters: Tensor

    def __init__(self, options: LogMelPreprocessing) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("transform", torch.from_numpy(options.transform()).float().unsqueeze(1))
        self.register_buffer("filters", torch.from_numpy(options.filters()).float())

    def forward(self, waveform: Tensor) -> Tensor:
        """Features of ``(N, samples)``."""
        options = self.options
        samples = waveform.unsqueeze(1)
        if options.center:
            half, mode = options.frame_size // 2, "reflect" if options.padding == "reflect" else "constant"
            samples = F.pad(samples, (half, half), mode=mode)
        real, imaginary = F.conv1d(samples, self.transform, stride=options.hop).chunk(2, dim=1)
        energy = real * real + imaginary * imaginary
        features = self.filters @ (energy if options.power == 2.0 else energy.sqrt())
        if options.drop_last_frame:
            features = features[..., :-1]
        if options.offset:
            features = features + options.offset
        features = self._logarithm(features.clamp_min(options.floor))
        if options.frames is not None:
            features = F.pad(features, (0, options.frames - features.shape[-1]))
        features = (features - options.mean) / options.std
        return features.transpose(1, 2) if options.time_first else features

    def _logarithm(self, energies: Tensor) -> Tensor:
        options = self.options
        if options.logarithm == "none":
            return energies
        values = energies.log()
        if options.logarithm == "log10":
            values = values * (1 / math.log(10))
        if options.dynamic_range is None:
            return values
        return torch.maximum(values, values.amax((1, 2), keepdim=True) - options.dynamic_range)


class ImageNetwork(nn.Module):
    """A network behind the preprocessing of its image.

    Args:
        options: The preprocessing.
        network: The network; it takes one tensor.
    """

    def __init__(self, options: ImagePreprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = ImageArithmetic(options)
        self.network = network

    def forward(self, image: Tensor) -> Any:
        """What the network makes of an image of the caller."""
        return self.network(self.preprocessing(image))


class AudioNetwork(nn.Module):
    """A network behind the preprocessing of its waveform.

    Args:
        options: The preprocessing.
        network: The network; it takes one tensor.
    """

    def __init__(self, options: LogMelPreprocessing, network: nn.Module) -> None:
        super().__init__()
        self.preprocessing = LogMel(options)
        self.network = network

    def forward(self, waveform: Tensor) -> Any:
        """What the network makes of a waveform."""
        return self.network(self.preprocessing(waveform))


def with_preprocessing(model: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """The network that takes what comes before ``preprocessing``; modules inside it begin with ``network.``.

    Args:
        model: The network; it takes one tensor.
        preprocessing: What to put in front of it.

    Returns:
        A module that takes ``image`` or ``waveform``.

    Example:
        >>> from exporters.preprocessing import ImagePreprocessing
        >>> network = with_preprocessing(nn.Identity(), ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
        >>> image = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
        >>> [round(value, 4) for value in network(image).flatten().tolist()]
        [-1.0, -0.6, 1.0]
    """
    if isinstance(preprocessing, ImagePreprocessing):
        return ImageNetwork(preprocessing, model)
    return AudioNetwork(preprocessing, model)

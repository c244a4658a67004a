"""BC-ResNet: a keyword spotter of a few thousand parameters that looks at time and frequency apart."""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError

MEL_BINS = 40
BANDS = 5
_BLOCKS = (2, 2, 4, 4)
_STRIDES = (1, 2, 2, 1)
_NARROWEST = 0.25


class SubSpectralNorm(nn.Module):
    """BatchNorm with statistics of its own for each band of frequencies.

    Args:
        channels: Number of channels.
        bands: Number of bands, a divisor of the number of frequencies.

    Source:
        Chang et al., "SubSpectral Normalization for Neural Audio Data Processing", arXiv:2103.13620.

    Example:
        >>> import torch
        >>> SubSpectralNorm(8, bands=5)(torch.randn(2, 8, 20, 7)).shape
        torch.Size([2, 8, 20, 7])
    """

    def __init__(self, channels: int, *, bands: int = BANDS) -> None:
        super().__init__()
        self.bands = bands
        self.norm = nn.BatchNorm2d(channels * bands)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised map, shape ``(N, channels, F, T)`` like ``features``."""
        batch, channels, frequencies, frames = features.shape
        banded = features.reshape(batch, channels * self.bands, frequencies // self.bands, frames)
        normal: Tensor = self.norm(banded)
        return normal.reshape(batch, channels, frequencies, frames)


class BroadcastedBlock(nn.Module):
    """Two residual branches: one over frequencies, and one over frames that is broadcast to all frequencies.

    Args:
        inputs: Channels of the input.
        channels: Channels of the output; where they differ the input is projected, and not added.
        stride: Stride over frequencies.
        dilation: Dilation over frames.
        dropout: Share of channels that training hides.
    """

    def __init__(self, inputs: int, channels: int, *, stride: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.projection = None if inputs == channels else _pointwise(inputs, channels)
        self.frequency = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), stride=(stride, 1), padding=(1, 0), groups=channels, bias=False),
            SubSpectralNorm(channels),
        )
        self.temporal = nn.Sequential(
            nn.Conv2d(
                channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Dropout2d(dropout),
        )

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Return the map, shape ``(N, channels, F / stride, T)``."""
        local = self.frequency(features if self.projection is None else self.projection(features))
        output = local + self.temporal(local.mean(2, keepdim=True))
        return F.relu(output if self.projection is not None else output + features)


class BCResNet(nn.Module):
    """BC-ResNet on log-mel features of `lightning_kd.speech.LogMel`.

    Parameters with 12 classes: 9,232 at width 1; 17,154 at 1.5; 27,284 at 2; 54,168 at 3; 187,812 at 6; 321,068 at 8.
    Its ``embedding`` is what the classifier ``head`` reads, shape ``(N, 4 * int(8 * width))``.

    Args:
        width: Multiplier of all widths, at least 0.25; named tau in the paper.
        classes: Number of classes.
        dropout: Share of channels that training hides in each block.

    Raises:
        ValueError: If ``width`` is out of range.

    Source:
        Kim et al., "Broadcasted Residual Learning for Efficient Keyword Spotting", arXiv:2106.04140.

    Example:
        >>> import torch
        >>> student = BCResNet(1.0)
        >>> sum(parameter.numel() for parameter in student.parameters())
        9232
        >>> student(torch.randn(2, 40, 101)).shape
        torch.Size([2, 12])
    """

    def __init__(self, width: float = 1.0, *, classes: int = 12, dropout: float = 0.1) -> None:
        super().__init__()
        if not _NARROWEST <= width < math.inf:
            raise ValueError(f"`width` must be a finite number of at least {_NARROWEST}, got {width!r}.")
        base = int(8 * width)
        stem, *widths, last = (2 * base, base, int(1.5 * base), 2 * base, int(2.5 * base), 4 * base)
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 5, stride=(2, 1), padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        blocks, inputs = [], stem
        for stage, (channels, count, stride) in enumerate(zip(widths, _BLOCKS, _STRIDES, strict=True)):
            for index in range(count):
                blocks.append(
                    BroadcastedBlock(
                        inputs, channels, stride=1 if index else stride, dilation=2**stage, dropout=dropout
                    )
                )
                inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.embedding = nn.Sequential(
            nn.Conv2d(inputs, inputs, BANDS, padding=(0, 2), groups=inputs, bias=False),
            _pointwise(inputs, last),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(last, classes)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Class scores.

        Args:
            features: Log-mel features, shape ``(N, 40, T)``; 101 frames are a second.

        Returns:
            Logits, shape ``(N, classes)``.

        Raises:
            ShapeError: If ``features`` has another shape.
        """
        if features.ndim != 3 or features.shape[1] != MEL_BINS:
            raise ShapeError(
                f"`features` must have shape (N, {MEL_BINS}, T), got {tuple(features.shape)}: put LogMel() in front."
            )
        logits: Tensor = self.head(self.embedding(self.blocks(self.stem(features.unsqueeze(1)))))
        return logits


def _pointwise(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

"""MatchboxNet: separable convolutions over the frames of a keyword, in residual blocks."""

from torch import Tensor, nn
from typing_extensions import override

from lightning_kd.errors import ShapeError

WIDE = 128
_FIRST_KERNEL, _LAST_KERNEL, _LAST_DILATION = 11, 29, 2


class SeparableBlock(nn.Module):
    """Separable convolutions over frames, added to a projection of their input.

    Args:
        inputs: Channels of the input.
        channels: Channels of the output.
        kernel: Frames that each convolution sees, odd.
        repeats: Number of convolutions.
        dropout: Share of values that training hides.
    """

    def __init__(self, inputs: int, channels: int, *, kernel: int, repeats: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(repeats):
            layers += [nn.ReLU(), nn.Dropout(dropout)] if index else []
            layers.append(_separable(channels if index else inputs, channels, kernel=kernel))
        self.convolutions = nn.Sequential(*layers)
        self.shortcut = _separable(inputs, channels, kernel=1)
        self.activation = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))

    @override
    def forward(self, frames: Tensor) -> Tensor:
        """Return the frames, shape ``(N, channels, T)``."""
        output: Tensor = self.activation(self.convolutions(frames) + self.shortcut(frames))
        return output


class MatchboxNet(nn.Module):
    """MatchboxNet-BxRxC on cepstra: B blocks of R convolutions with C channels.

    Parameters with 30 classes: 77,214 for 3x1x64 and 92,766 for 3x2x64, which are the published 77 and 93 thousand;
    with 12 classes 74,892 and 90,444. Its ``embedding`` is what the classifier ``head`` reads, shape ``(N, 128)``.

    Args:
        blocks: B; the kernels are 13, 15, 17 and so on.
        repeats: R.
        channels: C.
        classes: Number of classes.
        coefficients: Cepstral coefficients of a frame; published with 64.
        dropout: Share of values that training hides.

    Raises:
        ValueError: If ``blocks`` or ``repeats`` is below 1.

    Source:
        Majumdar and Ginsburg, "MatchboxNet: 1D Time-Channel Separable Convolutional Neural Network Architecture for
        Speech Commands Recognition", arXiv:2004.08531.

    Example:
        >>> import torch
        >>> student = MatchboxNet(3, 1, 64, classes=30)
        >>> sum(parameter.numel() for parameter in student.parameters())
        77214
        >>> student(torch.randn(2, 64, 101)).shape
        torch.Size([2, 30])
    """

    def __init__(
        self,
        blocks: int = 3,
        repeats: int = 1,
        channels: int = 64,
        *,
        classes: int = 12,
        coefficients: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if blocks < 1 or repeats < 1:
            raise ValueError(f"`blocks` and `repeats` must be at least 1, got {blocks} and {repeats}.")
        self.coefficients = coefficients
        self.stem = nn.Sequential(_separable(coefficients, WIDE, kernel=_FIRST_KERNEL), nn.ReLU())
        self.blocks = nn.Sequential(
            *(
                SeparableBlock(
                    channels if index else WIDE, channels, kernel=13 + 2 * index, repeats=repeats, dropout=dropout
                )
                for index in range(blocks)
            )
        )
        self.embedding = nn.Sequential(
            _separable(channels, WIDE, kernel=_LAST_KERNEL, dilation=_LAST_DILATION),
            nn.ReLU(),
            _separable(WIDE, WIDE, kernel=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(WIDE, classes)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Class scores.

        Args:
            features: Cepstra, shape ``(N, coefficients, T)``.

        Returns:
            Logits, shape ``(N, classes)``.

        Raises:
            ShapeError: If ``features`` has another shape.
        """
        if features.ndim != 3 or features.shape[1] != self.coefficients:
            raise ShapeError(
                f"`features` must have shape (N, {self.coefficients}, T), got {tuple(features.shape)}: put "
                "MFCC(coefficients=...) in front."
            )
        logits: Tensor = self.head(self.embedding(self.blocks(self.stem(features))))
        return logits


def _separable(inputs: int, outputs: int, *, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A depthwise convolution over frames and a pointwise one; the latter alone if it sees one frame."""
    pointwise = [nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs)]
    if kernel == 1:
        return nn.Sequential(*pointwise)
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv1d(inputs, inputs, kernel, padding=padding, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(depthwise, *pointwise)

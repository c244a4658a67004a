"""Front ends of keyword spotters: a waveform in, log-mel features or cepstra out, exported with the network."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from exporters.preprocessing import LogMelPreprocessing, modules
from lightning_kd._checks import check_choice
from lightning_kd.errors import ShapeError

Scaling = Literal["ortho", "htk"]

BC_RESNET_LOG_MEL = LogMelPreprocessing(fft_size=512, window_size=480, hop=160, mel_bins=40, offset=1e-6)
"""Log-mel features of BC-ResNet: 40 filters, windows of 30 ms every 10 ms, 101 centred frames of a second."""

KWT_LOG_MEL = LogMelPreprocessing(
    fft_size=512,
    window_size=480,
    hop=160,
    mel_bins=80,
    minimum_hz=20.0,
    maximum_hz=7600.0,
    power=1.0,
    center=False,
    floor=1e-12,
)
"""What the cepstra of KWT are made of: 80 filters to 7600 Hz, windows of 30 ms every 10 ms, 98 frames of a second."""


class LogMel(modules.LogMel):
    """A waveform in, log-mel features out, by one convolution and one matrix product.

    Put it in front of a network, ``nn.Sequential(LogMel(), BCResNet())``, and the export takes waveforms.

    Args:
        options: What to compute; ``None`` for `BC_RESNET_LOG_MEL`. Those of torchaudio and of librosa are in
            docs/keywords.md.

    Example:
        >>> LogMel()(torch.zeros(1, 16000)).shape
        torch.Size([1, 40, 101])
    """

    def __init__(self, options: LogMelPreprocessing | None = None) -> None:
        super().__init__(BC_RESNET_LOG_MEL if options is None else options)

    @override
    def forward(self, waveform: Tensor) -> Tensor:
        """Features of waveforms.

        Args:
            waveform: Samples from -1 to 1, shape ``(N, samples)``, floating point.

        Returns:
            Shape ``(N, mel_bins, T)``, or ``(N, T, mel_bins)`` with ``time_first``.

        Raises:
            ShapeError: If ``waveform`` has another number of axes, or is shorter than a window.
        """
        if waveform.ndim != 2 or waveform.shape[1] < self.options.frame_size:
            raise ShapeError(
                f"`waveform` must have shape (N, samples) with at least {self.options.frame_size} samples, a window, "
                f"got {tuple(waveform.shape)}: pad it."
            )
        return super().forward(waveform)

    @override
    def extra_repr(self) -> str:
        return f"{self.options.mel_bins} bins, hop {self.options.hop} at {self.options.sample_rate} Hz"


class MFCC(nn.Module):
    """A waveform in, mel-frequency cepstral coefficients out: the cosine transform of log-mel features.

    Args:
        options: The log-mel features; ``None`` for `KWT_LOG_MEL`.
        coefficients: How many coefficients are kept, at most the number of filters.
        scaling: As in `cosine_transform`; torchaudio and librosa have ``"ortho"``.

    Raises:
        ValueError: If ``coefficients`` is out of range or ``scaling`` unknown.

    Source:
        Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in
        Continuously Spoken Sentences", IEEE TASSP 28(4), 1980.

    Example:
        >>> MFCC()(torch.zeros(1, 16000)).shape
        torch.Size([1, 40, 98])
    """

    basis: Tensor

    def __init__(
        self, options: LogMelPreprocessing | None = None, *, coefficients: int = 40, scaling: Scaling = "ortho"
    ) -> None:
        super().__init__()
        self.log_mel = LogMel(KWT_LOG_MEL if options is None else options)
        self.scaling = scaling
        basis = cosine_transform(coefficients, self.log_mel.options.mel_bins, scaling=scaling)
        self.register_buffer("basis", basis.float())

    @override
    def forward(self, waveform: Tensor) -> Tensor:
        """Coefficients of waveforms.

        Args:
            waveform: Samples from -1 to 1, shape ``(N, samples)``, floating point.

        Returns:
            Shape ``(N, coefficients, T)``, or ``(N, T, coefficients)`` with ``time_first``.

        Raises:
            ShapeError: If ``waveform`` has another number of axes, or is shorter than a window.
        """
        features: Tensor = self.log_mel(waveform)
        return features @ self.basis.T if self.log_mel.options.time_first else self.basis @ features

    @override
    def extra_repr(self) -> str:
        return f"coefficients={self.basis.shape[0]}, scaling={self.scaling!r}"


def cosine_transform(coefficients: int, bins: int, *, scaling: Scaling = "ortho") -> Tensor:
    r"""Matrix of the cosine transform (type II) that turns log-mel features into cepstra.

    .. math::
        B_{km} = \sqrt{2 / M} \cos\bigl(\pi k (m + \tfrac{1}{2}) / M\bigr)

    With ``"ortho"`` the row of :math:`k = 0` is divided by :math:`\sqrt 2`, so that the whole matrix is orthogonal;
    with ``"htk"`` it is not, as in HTK and in TensorFlow's ``mfccs_from_log_mel_spectrograms``.

    Args:
        coefficients: Rows to keep, from 1 to ``bins``.
        bins: Number :math:`M` of mel filters.
        scaling: ``"ortho"`` or ``"htk"``.

    Returns:
        Shape ``(coefficients, bins)``, float64.

    Raises:
        ValueError: If ``coefficients`` is out of range or ``scaling`` unknown.

    Example:
        >>> basis = cosine_transform(4, 4)
        >>> torch.allclose(basis @ basis.T, torch.eye(4, dtype=torch.float64))
        True
    """
    check_choice("scaling", scaling, ("ortho", "htk"))
    if not 1 <= coefficients <= bins:
        raise ValueError(f"`coefficients` must be from 1 to the number of mel filters, {bins}, got {coefficients!r}.")
    angles = np.pi / bins * np.outer(np.arange(coefficients), np.arange(bins) + 0.5)
    basis = np.sqrt(2 / bins) * np.cos(angles)
    if scaling == "ortho":
        basis[0] /= np.sqrt(2)
    return torch.from_numpy(basis)

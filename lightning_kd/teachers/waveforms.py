"""What a teacher of another sample rate, or with another front end, hears of the student's waveform."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.preprocessing import LogMelPreprocessing
from exporters.preprocessing.modules import LogMel
from lightning_kd.errors import SetupError, ShapeError
from lightning_kd.losses._common import without_autocast

ZEROS = 16
ROLLOFF = 0.95


@dataclass(frozen=True, slots=True)
class WaveformView:
    """The very waveforms that the student got, at the teacher's sample rate, or as the features that it takes.

    Attributes:
        student_hz: Sample rate of the student's waveforms, Hz.
        teacher_hz: That of the teacher's.
        features: What the teacher takes instead of a waveform: log-mel features, as
            `exporters.preprocessing.from_transformers` reads them from its feature extractor; they come with the sample
            rate, which must be ``teacher_hz``. Waveforms are cut or filled with zeros to the length that they ask for.

    Raises:
        SetupError: If a rate is not above 0, or not that of ``features``.

    Example:
        >>> WaveformView(8000, 16000)(torch.zeros(2, 800)).shape
        torch.Size([2, 1600])
        >>> from transformers import ASTFeatureExtractor
        >>> from exporters.preprocessing import from_transformers
        >>> view = WaveformView(8000, 16000, features=from_transformers(ASTFeatureExtractor(num_mel_bins=32)))
        >>> view(torch.zeros(2, 8000)).shape
        torch.Size([2, 1024, 32])
    """

    student_hz: int
    teacher_hz: int
    features: LogMelPreprocessing | None = None
    _front_end: list[LogMel] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values."""
        if min(self.student_hz, self.teacher_hz) < 1:
            raise SetupError(f"sample rates must be at least 1 Hz, got {self.student_hz} and {self.teacher_hz}.")
        if self.features is None:
            return
        if self.features.sample_rate != self.teacher_hz:
            raise SetupError(
                f"`teacher_hz` must be the rate of the features, {self.features.sample_rate} Hz, got {self.teacher_hz}."
            )
        self._front_end.append(LogMel(self.features))

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Return what the teacher takes.

        Args:
            waveforms: Samples from -1 to 1, shape ``(N, samples)``, floating point.

        Returns:
            Waveforms of shape ``(N, samples * teacher_hz / student_hz)``, rounded up, or features.

        Raises:
            ShapeError: If ``waveforms`` has not two axes.
        """
        if waveforms.ndim != 2:
            raise ShapeError(f"`waveforms` must have shape (N, samples), got {tuple(waveforms.shape)}.")
        with without_autocast(waveforms):
            heard = resample(waveforms, self.student_hz, self.teacher_hz)
            if self.features is None:
                return heard
            if self.features.samples is not None:
                heard = F.pad(heard, (0, self.features.samples - heard.shape[1]))
            shown: Tensor = self._front_end[0].to(heard.device)(heard)
            return shown


def resample(waveforms: Tensor, from_hz: int, to_hz: int) -> Tensor:
    r"""Waveforms at another sample rate, by convolution with a windowed sinc.

    .. math::
        y_m = \sum_n x_n \, c \, \mathrm{sinc}\bigl(c (t_m - n)\bigr) \, w(t_m - n), \qquad
        t_m = m \frac{f_{from}}{f_{to}}, \quad c = 0.95 \min\bigl(1, \frac{f_{to}}{f_{from}}\bigr)

    with a Hann window :math:`w` over 16 zero crossings on both sides; beyond its ends the waveform is zero.

    Args:
        waveforms: Samples, shape ``(N, samples)``, floating point.
        from_hz: Their rate, Hz.
        to_hz: The rate wanted, Hz.

    Returns:
        Shape ``(N, ceil(samples * to_hz / from_hz))``; ``waveforms`` itself if the rates are equal.

    Source:
        Smith, "Digital Audio Resampling", Stanford University: bandlimited interpolation.

    Example:
        >>> resample(torch.ones(1, 64), 2, 1).shape
        torch.Size([1, 32])
    """
    if from_hz == to_hz:
        return waveforms
    common = math.gcd(from_hz, to_hz)
    step, phases = from_hz // common, to_hz // common
    cutoff = ROLLOFF * min(1.0, to_hz / from_hz)
    reach = math.ceil(ZEROS / cutoff)
    taps = torch.arange(-reach, reach + step, dtype=torch.float64)
    distance = torch.arange(phases, dtype=torch.float64)[:, None] * step / phases - taps
    window = torch.cos(distance * cutoff * math.pi / (2 * ZEROS)).square()
    kernel = cutoff * torch.sinc(cutoff * distance) * window.masked_fill(distance.abs() * cutoff >= ZEROS, 0.0)
    padded = F.pad(waveforms, (reach, reach + step))[:, None]
    resampled = F.conv1d(padded, kernel[:, None].to(waveforms), stride=step)
    length = math.ceil(waveforms.shape[1] * to_hz / from_hz)
    return resampled.transpose(1, 2).flatten(1)[:, :length]

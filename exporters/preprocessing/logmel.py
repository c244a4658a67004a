"""Log-mel spectrograms from waveforms, as the feature extractors of speech and audio networks compute them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

MelScale = Literal["htk", "slaney", "kaldi"]
Logarithm = Literal["log", "log10", "none"]
Padding = Literal["reflect", "zeros"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMelPreprocessing:
    r"""How a waveform becomes log-mel features.

    Frames of ``window_size`` samples, every ``hop`` samples, are freed of their mean, differentiated by
    ``preemphasis``, weighted by a Hann window and transformed; with mel filters :math:`m_{kf}`,

    .. math::
        y_{kt} = \frac{\log \max(\text{floor}, \text{offset} + \sum_f m_{kf} |X_{ft}|^{\text{power}}) - \text{mean}}
            {\text{std}}.

    All of it goes into the graph, as one convolution and one matrix product. Resampling, and padding or cutting to
    ``samples``, are left to the caller.

    Args:
        sample_rate: Samples per second, Hz.
        fft_size: Length of the transform, samples.
        window_size: Length of a frame, samples, at most ``fft_size``; ``None`` for ``fft_size``.
        hop: Samples from one frame to the next.
        mel_bins: Number of filters.
        minimum_hz: Lower end of the first filter, Hz.
        maximum_hz: Upper end of the last filter, Hz; ``None`` for half the sample rate.
        mel_scale: ``"htk"``; ``"slaney"``, linear below 1000 Hz; or ``"kaldi"``, whose filters are triangles in mels.
        normalized_filters: Whether a filter's area is 1 (in Hz) instead of its height.
        periodic_window: Whether the Hann window is periodic, not symmetric.
        power: 2 for energies, 1 for magnitudes.
        center: Whether frames are centred on their time, with the waveform continued at both ends.
        padding: What continues it: its reflection, as in torchaudio, or zeros, as in librosa.
        drop_last_frame: Whether the last frame is left out.
        remove_offset: Whether a frame's mean is subtracted.
        preemphasis: Share of the sample before that is subtracted from each.
        logarithm: Natural, to base 10, or none.
        offset: Added before the logarithm, at least 0.
        floor: Smallest value before the logarithm, above 0.
        dynamic_range: Values further below the largest of the sample are raised to it, in units of the logarithm;
            ``None`` for no bound.
        mean: Subtracted from the logarithm.
        std: Divisor of the result, above 0.
        frames: Number of frames to which the result is cut or filled with zeros before ``mean``; ``None`` for all.
        time_first: Whether the result is ``(N, T, mel_bins)`` instead of ``(N, mel_bins, T)``.
        samples: Length to which the caller pads with zeros or cuts; ``None`` for any.

    Raises:
        ValueError: If a value is outside its range.

    Source:
        Stevens, Volkmann and Newman, "A Scale for the Measurement of the Psychological Magnitude Pitch", 1937; the
        scales are those of HTK, of Slaney's Auditory Toolbox and of Kaldi.

    Example:
        >>> LogMelPreprocessing(fft_size=400, mel_bins=4, maximum_hz=8000.0).filters().shape
        (4, 201)
    """

    sample_rate: int = 16000
    fft_size: int = 400
    window_size: int | None = None
    hop: int = 160
    mel_bins: int = 80
    minimum_hz: float = 0.0
    maximum_hz: float | None = None
    mel_scale: MelScale = "htk"
    normalized_filters: bool = False
    periodic_window: bool = True
    power: float = 2.0
    center: bool = True
    padding: Padding = "reflect"
    drop_last_frame: bool = False
    remove_offset: bool = False
    preemphasis: float = 0.0
    logarithm: Logarithm = "log"
    offset: float = 0.0
    floor: float = 1e-10
    dynamic_range: float | None = None
    mean: float = 0.0
    std: float = 1.0
    frames: int | None = None
    time_first: bool = False
    samples: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not 2 <= self.frame_size <= self.fft_size:
            raise ValueError(f"`window_size` must be from 2 to `fft_size`, got {self.frame_size} and {self.fft_size}.")
        if not 0 <= self.minimum_hz < self.top_hz <= self.sample_rate / 2:
            raise ValueError(
                f"`minimum_hz` and `maximum_hz` must rise between 0 and half of `sample_rate`, "
                f"got {self.minimum_hz}, {self.top_hz} and {self.sample_rate}."
            )
        for name, choices in (("mel_scale", MelScale), ("logarithm", Logarithm), ("padding", Padding)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"`{name}` must be one of {get_args(choices)}, got {getattr(self, name)!r}.")
        if self.power not in (1.0, 2.0) or not 0 < self.floor < math.inf or not 0 < self.std < math.inf:
            raise ValueError(
                f"`power` must be 1 or 2, `floor` and `std` finite and above 0, "
                f"got {self.power}, {self.floor} and {self.std}."
            )
        if not 0 <= self.offset < math.inf:
            raise ValueError(f"`offset` must be a finite number of at least 0, got {self.offset!r}.")

    @property
    def frame_size(self) -> int:
        """Length of a frame, samples."""
        return self.fft_size if self.window_size is None else self.window_size

    @property
    def top_hz(self) -> float:
        """Upper end of the last filter, Hz."""
        return self.sample_rate / 2 if self.maximum_hz is None else self.maximum_hz

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest value of a waveform."""
        return (-1.0, 1.0)

    @property
    def caller_steps(self) -> tuple[str, ...]:
        """What the caller still has to do, in order."""
        length = () if self.samples is None else (f"pad with zeros at the end, or cut, to {self.samples} samples",)
        return (
            f"decode to one channel of {self.sample_rate} Hz",
            *length,
            "pass (N, samples) of float32 from -1 to 1",
        )

    def filters(self) -> npt.NDArray[np.float64]:
        """Mel filters, shape ``(mel_bins, fft_size // 2 + 1)``."""
        low, high = (_to_mel(hz, self.mel_scale) for hz in (self.minimum_hz, self.top_hz))
        edges = np.linspace(low, high, self.mel_bins + 2, dtype=np.float64)
        points = np.arange(self.fft_size // 2 + 1, dtype=np.float64) * (self.sample_rate / self.fft_size)
        if self.mel_scale == "kaldi":
            points = np.array([_to_mel(hz, "kaldi") for hz in points])
        else:
            edges = np.array([_to_hz(mel, self.mel_scale) for mel in edges])
        left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        rising, falling = (points - left) / (middle - left), (right - points) / (right - middle)
        triangles: npt.NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
        return triangles * (2.0 / (right - left)) if self.normalized_filters else triangles

    def transform(self) -> npt.NDArray[np.float64]:
        """Real and imaginary parts of the windowed transform of a frame, shape ``(2 * bins, frame_size)``."""
        size = self.frame_size
        ramp = np.arange(size)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * ramp / (size if self.periodic_window else size - 1))
        frame = np.eye(size) - (1.0 / size if self.remove_offset else 0.0)
        before = np.vstack([frame[:1], frame[:-1]])
        angles = 2 * np.pi / self.fft_size * np.outer(np.arange(self.fft_size // 2 + 1), ramp)
        waves = np.vstack([np.cos(angles), -np.sin(angles)])
        return np.asarray((waves * window) @ (frame - self.preemphasis * before))

    def to_content(self) -> dict[str, Any]:
        """The JSON object, with the caller's steps in words."""
        return {"kind": "logmel", **asdict(self), "caller_steps": list(self.caller_steps)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object that `to_content` returns."""
        return cls(**{name: value for name, value in content.items() if name not in ("kind", "caller_steps")})


# Slaney's scale has 3 mels per 200 Hz up to 1000 Hz, where it turns logarithmic with 27 mels per factor of 6.4.
_KNEE_HZ, _KNEE_MEL, _MELS_PER_E = 1000.0, 15.0, 27.0 / math.log(6.4)


def _to_mel(hz: float, scale: MelScale) -> float:
    if scale == "slaney":
        return hz * 3 / 200 if hz < _KNEE_HZ else _KNEE_MEL + math.log(hz / _KNEE_HZ) * _MELS_PER_E
    return 2595.0 * math.log10(1 + hz / 700.0) if scale == "htk" else 1127.0 * math.log(1 + hz / 700.0)


def _to_hz(mel: float, scale: MelScale) -> float:
    if scale == "slaney":
        return mel * 200 / 3 if mel < _KNEE_MEL else _KNEE_HZ * math.exp((mel - _KNEE_MEL) / _MELS_PER_E)
    return 700.0 * (10 ** (mel / 2595.0) - 1)

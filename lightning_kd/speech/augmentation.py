"""Augmentation of keyword audio as modules that act in training mode only.

Apply `RandomShift` and `AddNoise` to the batch before the student is called (in ``on_after_batch_transfer`` or at the
start of ``training_step``), so that the teacher hears the same; put `SpecAugment` between the student's front end and
its network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_kd._checks import check_fraction, check_not_negative
from lightning_kd.errors import ShapeError

_SILENCE = 1e-12


class RandomShift(nn.Module):
    """Moves each waveform in time, by up to ``samples`` either way; what it leaves empty is silence.

    Args:
        samples: Largest shift, samples; BC-ResNet has 1600, which are 100 ms.

    Raises:
        ValueError: If ``samples`` is negative.

    Example:
        >>> shift = RandomShift(1)
        >>> waveform = shift(torch.ones(1, 4))
        >>> shift.eval()(torch.ones(1, 4))
        tensor([[1., 1., 1., 1.]])
    """

    def __init__(self, samples: int = 1600) -> None:
        super().__init__()
        check_not_negative("samples", samples)
        self.samples = samples

    @override
    def forward(self, waveform: Tensor) -> Tensor:
        """Return the moved waveforms, shape ``(N, samples)`` like ``waveform``."""
        _check_waveform(waveform)
        if not self.training or self.samples == 0:
            return waveform
        count, length = waveform.shape
        moves = torch.randint(-self.samples, self.samples + 1, (count, 1), device=waveform.device)
        sources = torch.arange(length, device=waveform.device) - moves
        moved = waveform.gather(1, sources.clamp(0, length - 1))
        return torch.where((sources >= 0) & (sources < length), moved, 0.0)

    @override
    def extra_repr(self) -> str:
        return f"samples={self.samples}"


class AddNoise(nn.Module):
    """Adds background noise to some of the waveforms.

    Args:
        recordings: Background recordings, each of shape ``(samples,)`` and longer than a waveform, of which random
            parts are taken; ``None`` for white noise.
        probability: Share of the waveforms that get noise; BC-ResNet has 0.8.
        ratio_db: Lowest and highest ratio of the waveform's energy to the noise's, dB, drawn uniformly.

    Raises:
        ShapeError: If a recording has another shape.
        ValueError: If ``probability`` is out of range or ``ratio_db`` falls.

    Example:
        >>> noisy = AddNoise(probability=1.0, ratio_db=(20.0, 20.0))(torch.ones(1, 16000))
        >>> round(float((noisy - 1).square().mean()), 2)  # 20 dB below an energy of 1
        0.01
    """

    def __init__(
        self,
        recordings: Sequence[Tensor] | None = None,
        *,
        probability: float = 0.8,
        ratio_db: tuple[float, float] = (0.0, 20.0),
    ) -> None:
        super().__init__()
        check_fraction("probability", probability)
        if ratio_db[0] > ratio_db[1]:
            raise ValueError(f"`ratio_db` must rise, got {ratio_db}.")
        if recordings is not None and not (recordings and all(each.ndim == 1 for each in recordings)):
            raise ShapeError(
                f"`recordings` must have shape (samples,), at least one, got {[tuple(r.shape) for r in recordings]}."
            )
        self.recordings = recordings
        self.probability = probability
        self.ratio_db = ratio_db

    @override
    def forward(self, waveform: Tensor) -> Tensor:
        """Return the waveforms with noise, shape ``(N, samples)`` like ``waveform``.

        Raises:
            ShapeError: If ``waveform`` has another number of axes, or a recording is shorter.
        """
        _check_waveform(waveform)
        if not self.training:
            return waveform
        noise = torch.randn_like(waveform) if self.recordings is None else self._parts(self.recordings, waveform)
        low, high = self.ratio_db
        count, device = waveform.shape[0], waveform.device
        decibels = low + (high - low) * torch.rand(count, 1, device=device)
        energy, of_noise = (wave.square().mean(1, keepdim=True) for wave in (waveform, noise))
        gain = (energy / of_noise.clamp(min=_SILENCE) * 10 ** (-decibels / 10)).sqrt()
        chosen = torch.rand(count, 1, device=device) < self.probability
        return waveform + torch.where(chosen, gain * noise, 0.0)

    def _parts(self, recordings: Sequence[Tensor], waveform: Tensor) -> Tensor:
        count, length = waveform.shape
        parts = []
        for index in torch.randint(len(recordings), (count,)).tolist():
            room = len(recordings[index]) - length
            if room < 0:
                raise ShapeError(f"`recordings` must have at least {length} samples, a waveform, got {room + length}.")
            start = int(torch.randint(room + 1, ()))
            parts.append(recordings[index][start : start + length].to(waveform))
        return torch.stack(parts)

    @override
    def extra_repr(self) -> str:
        return f"probability={self.probability}, ratio_db={self.ratio_db}"


class SpecAugment(nn.Module):
    """Replaces stripes of log-mel features, along both axes, by the utterance's mean.

    Each stripe begins at a random place and is 0 to ``*_width`` wide, drawn anew for every utterance. There is no time
    warping.

    Args:
        frequency_masks: Number of stripes of frequencies.
        frequency_width: Widest of them, filters; BC-ResNet has 1, 3, 5, 7 and 7 at widths 1.5, 2, 3, 6 and 8, and none
            of any kind at width 1.
        time_masks: Number of stripes of frames.
        time_width: Widest of them, frames.

    Raises:
        ValueError: If a number is negative.

    Source:
        Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition",
        arXiv:1904.08779.

    Example:
        >>> SpecAugment(frequency_width=7)(torch.randn(2, 40, 101)).shape
        torch.Size([2, 40, 101])
    """

    def __init__(
        self, *, frequency_masks: int = 2, frequency_width: int = 7, time_masks: int = 2, time_width: int = 20
    ) -> None:
        super().__init__()
        self.masks = ((1, frequency_masks, frequency_width), (2, time_masks, time_width))
        for name, value in (
            ("frequency_masks", frequency_masks),
            ("frequency_width", frequency_width),
            ("time_masks", time_masks),
            ("time_width", time_width),
        ):
            check_not_negative(name, value)

    @override
    def forward(self, features: Tensor) -> Tensor:
        """Return the features with stripes, shape ``(N, F, T)`` like ``features``.

        Raises:
            ShapeError: If ``features`` has another number of axes.
        """
        if features.ndim != 3:
            raise ShapeError(f"`features` must have shape (N, F, T), got {tuple(features.shape)}.")
        if not self.training:
            return features
        fill = features.mean((1, 2), keepdim=True)
        for axis, count, width in self.masks:
            for _ in range(count):
                features = torch.where(_stripe(features, axis, width), fill, features)
        return features

    @override
    def extra_repr(self) -> str:
        return ", ".join(
            f"{count} of {width} along {name}"
            for name, (_, count, width) in zip(("frequency", "time"), self.masks, strict=True)
        )


def _stripe(features: Tensor, axis: int, width: int) -> Tensor:
    """True inside one random stripe of each utterance, shape ``(N, F, 1)`` or ``(N, 1, T)``."""
    count, size = features.shape[0], features.shape[axis]
    widths = torch.randint(min(width, size) + 1, (count, 1), device=features.device)
    starts = (torch.rand(count, 1, device=features.device) * (size - widths + 1)).long()
    places = torch.arange(size, device=features.device)
    inside = (places >= starts) & (places < starts + widths)
    return inside.unsqueeze(2) if axis == 1 else inside.unsqueeze(1)


def _check_waveform(waveform: Tensor) -> None:
    if waveform.ndim != 2:
        raise ShapeError(f"`waveform` must have shape (N, samples), got {tuple(waveform.shape)}.")

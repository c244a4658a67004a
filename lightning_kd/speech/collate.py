"""Batches of audio of unequal lengths: padded with a mask, or cropped to the shortest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from lightning_kd.errors import AudioError
from lightning_kd.frames import lengths_to_mask

RECEPTIVE_FIELD = 400
_AUDIO, _RATE = "audio", "sampling_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class PadAudio:
    """Collates audio into a zero-padded batch with the mask that tells speech models and losses what is padding.

    An item is a waveform (tensor, NumPy array or list of floats), a pair of one and a label, or a mapping with the
    waveform as ``"audio"``; as in Hugging Face's data sets it may be a mapping of ``"array"`` and ``"sampling_rate"``
    itself. Labels, and what else a mapping holds, are collated by `torch.utils.data.default_collate`; lists, and arrays
    of unequal shapes, stay as they are.

    Attributes:
        sample_rate: Of the model, in Hz; items that say theirs must agree.
        return_attention_mask: Whether the batch has ``attention_mask``, int64; leave it out for checkpoints with a
            group norm in front, such as ``facebook/hubert-base-ls960``, see `lengths_before_zeros` for their losses.
        shortest: Samples that an item must have at least; 400 is the receptive field of HuBERT's first frame.
        standardize: Whether each waveform is brought to mean 0 and variance 1, as the feature extractors of ``-large``
            checkpoints do.

    Raises:
        ValueError: If a number is not above 0.

    Example:
        >>> collate = PadAudio(sample_rate=16000)
        >>> batch = collate([torch.full((600,), 0.1), torch.full((400,), 0.2)])
        >>> batch["input_values"].shape, batch["attention_mask"].sum(dim=1)
        (torch.Size([2, 600]), tensor([600, 400]))
    """

    sample_rate: int
    return_attention_mask: bool = True
    shortest: int = RECEPTIVE_FIELD
    standardize: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        _check_counts(sample_rate=self.sample_rate, shortest=self.shortest)

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        """Collate items.

        Args:
            items: Of one kind.

        Returns:
            ``input_values`` of shape ``(N, samples)``, float32; ``attention_mask`` of the same shape; and the rest.

        Raises:
            AudioError: If audio is shorter than ``shortest``, not finite, of another rate, or not of one channel.
        """
        waves, rest = _waves(items, self.sample_rate, self.shortest)
        if self.standardize:
            waves = [(wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt() for wave in waves]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        batch = {"input_values": padded}
        if self.return_attention_mask:
            lengths = torch.tensor([len(wave) for wave in waves])
            batch["attention_mask"] = lengths_to_mask(lengths, padded.shape[1]).long()
        return batch | rest


@dataclass(frozen=True, slots=True, kw_only=True)
class CropToShortest:
    """Collates audio by cropping every item, at random, to the shortest: no padding, no mask.

    This is how DPHuBERT's code makes its batches, and how models whose features depend on their padding see none. Use
    it with `LengthBucketSampler`, so that little is cut off. Items are those of `PadAudio`. Random numbers are torch's.

    Attributes:
        sample_rate: Of the model, in Hz; items that say theirs must agree.
        min_samples: Samples that an item must have at least.
        max_samples: Samples of the longest crop.

    Raises:
        ValueError: If a number is not above 0, or ``max_samples`` is below ``min_samples``.

    Source:
        Peng et al., "DPHuBERT: Joint Distillation and Pruning of Self-Supervised Speech Models", arXiv:2305.17651.

    Example:
        >>> crop = CropToShortest(sample_rate=16000, min_samples=400)
        >>> crop([torch.ones(600), torch.ones(500)])["input_values"].shape
        torch.Size([2, 500])
    """

    sample_rate: int
    min_samples: int = 32_000
    max_samples: int = 250_000

    def __post_init__(self) -> None:
        """Check the values."""
        _check_counts(sample_rate=self.sample_rate, min_samples=self.min_samples)
        if self.max_samples < self.min_samples:
            raise ValueError(f"`max_samples` must be at least {self.min_samples}, got {self.max_samples}.")

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        """Collate items.

        Args:
            items: Of one kind.

        Returns:
            ``input_values`` of shape ``(N, samples)``, float32, and the rest.

        Raises:
            AudioError: If audio is shorter than ``min_samples``, not finite, of another rate, or not of one channel.
        """
        waves, rest = _waves(items, self.sample_rate, self.min_samples)
        length = min(self.max_samples, *(len(wave) for wave in waves))
        starts = [int(torch.randint(len(wave) - length + 1, ())) for wave in waves]
        crops = [wave[start : start + length] for wave, start in zip(waves, starts, strict=True)]
        return {"input_values": torch.stack(crops)} | rest


def checked_wave(audio: Any, *, sample_rate: int, shortest: int = RECEPTIVE_FIELD, name: str = "audio") -> Tensor:
    """One waveform as float32, checked.

    Args:
        audio: Samples of one channel, or a mapping of ``"array"`` and ``"sampling_rate"``.
        sample_rate: Of the model, in Hz.
        shortest: Samples that it must have at least.
        name: What it is called in messages.

    Returns:
        Shape ``(samples,)``, float32.

    Raises:
        AudioError: If it is shorter, not finite, of another rate, or not of one channel.

    Example:
        >>> checked_wave({"array": [0.0] * 800, "sampling_rate": 8000}, sample_rate=16000)
        Traceback (most recent call last):
        lightning_kd.errors.AudioError: `audio` must have 16000 samples per second, got 8000: resample it.
    """
    if isinstance(audio, Mapping):
        rate = audio.get(_RATE, sample_rate)
        if rate != sample_rate:
            raise AudioError(f"`{name}` must have {sample_rate} samples per second, got {rate}: resample it.")
        audio = audio["array"]
    wave = torch.as_tensor(audio)
    if wave.ndim != 1 or not wave.is_floating_point():
        raise AudioError(
            f"`{name}` must be one channel of floating-point samples, shape (samples,), got {wave.dtype} of shape "
            f"{tuple(wave.shape)}: average channels, and divide 16-bit samples by 32768."
        )
    if len(wave) < shortest:
        raise AudioError(
            f"`{name}` must have at least {shortest} samples, got {len(wave)}: pad it, or leave it out of the data."
        )
    if not bool(wave.isfinite().all()):
        bad = int((~wave.isfinite()).sum())
        raise AudioError(f"`{name}` must be finite, got {bad} samples that are NaN or infinite: check the file.")
    return wave.float()


def _waves(items: Sequence[Any], sample_rate: int, shortest: int) -> tuple[list[Tensor], dict[str, Any]]:
    """The waveforms of a batch, and everything else by key."""
    if not items:
        raise AudioError("a batch must hold at least one item, got none.")
    waves, others = [], []
    for index, item in enumerate(items):
        audio, rest = _parts(item)
        if _RATE in rest:
            audio = {"array": audio, _RATE: rest.pop(_RATE)}
        waves.append(checked_wave(audio, sample_rate=sample_rate, shortest=shortest, name=f"{_AUDIO}[{index}]"))
        others.append(rest)
    return waves, {key: _collated([rest[key] for rest in others]) for key in others[0]}


def _parts(item: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(item, Mapping):
        if _AUDIO not in item:
            raise AudioError(f"an item must hold its waveform as 'audio', got the keys {list(item)}.")
        return item[_AUDIO], {key: value for key, value in item.items() if key != _AUDIO}
    if isinstance(item, tuple):
        return item[0], {"labels": item[1]} if len(item) > 1 else {}
    return item, {}


def _collated(values: list[Any]) -> Any:
    """One batch of ``values``; lists, and what is of unequal shapes, stay as they are."""
    shapes = {getattr(value, "shape", None) for value in values}
    return values if len(shapes) > 1 or isinstance(values[0], list) else default_collate(values)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` must be above 0, got {count}.")

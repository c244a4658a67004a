"""Reads AN4's cepstra and transcripts, and a small CTC network for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _data import data_folder
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from lightning_kd.frames import lengths_to_mask

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ "
BLANK, CLASSES, CEPSTRA, STRIDE, KERNEL = 0, len(ALPHABET) + 1, 13, 3, 9
SOURCE = "an4_mfcc.npz: 13 cepstra at 100 frames per second of CMU AN4, official split, disjoint speakers"

Utterance = tuple[Tensor, Tensor]


class Utterances(Dataset[Utterance]):
    """Cepstra ``(T, 13)``, each dimension with mean 0 and deviation 1 in the utterance, and labels ``(U,)``."""

    def __init__(self, items: Sequence[Utterance], texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self._items = list(items)

    def first(self, count: int | None) -> "Utterances":
        """The first ``count`` utterances; ``None`` for all."""
        return Utterances(self._items[:count], self.texts[:count])

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Utterance:
        return self._items[index]


def read_an4(file: Path | None = None) -> tuple[Utterances, Utterances]:
    """Utterances to train and to test on.

    Args:
        file: Where they are; ``None`` takes the project's data folder.

    Raises:
        FileNotFoundError: If there is no file.
    """
    file = data_folder() / "an4_mfcc" / "an4_mfcc.npz" if file is None else file
    if not file.exists():
        raise FileNotFoundError(f"no {file}; set LIGHTNING_KD_DATA to the folder of data sets.")
    with np.load(file) as arrays:
        return _part(arrays, "train"), _part(arrays, "test")


def _part(arrays: np.lib.npyio.NpzFile, name: str) -> Utterances:
    frames, offsets = arrays[f"{name}_feat"], arrays[f"{name}_offsets"]
    texts = [str(text).strip() for text in arrays[f"{name}_text"]]
    features = [_normalised(frames[start:end]) for start, end in pairwise(offsets)]
    return Utterances(list(zip(features, map(encode, texts), strict=True)), texts)


def _normalised(frames: np.ndarray) -> Tensor:
    values = torch.from_numpy(frames).float()
    return (values - values.mean(0)) / (values.std(0) + 1e-5)


def encode(text: str) -> Tensor:
    """Classes of a transcript."""
    return torch.tensor([1 + ALPHABET.index(letter) for letter in text])


def decode(labels: Sequence[int]) -> str:
    """Transcript of classes."""
    return " ".join("".join(ALPHABET[label - 1] for label in labels).split())


def collate(items: Sequence[Utterance]) -> tuple[Tensor, Tensor, Tensor]:
    """Frames ``(N, T, 13)``, lengths ``(N,)`` and labels ``(N, U)``, padded with 0, the blank."""
    frames, labels = zip(*items, strict=True)
    lengths = torch.tensor([len(part) for part in frames])
    return pad_sequence(frames, batch_first=True), lengths, pad_sequence(labels, batch_first=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a network: channels, and blocks of depthwise-separable convolutions."""

    width: int
    blocks: int


class Block(nn.Module):
    """Depthwise convolution over time, two pointwise layers, and a way around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.over_time = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden states ``(N, T, width)``; the convolution sees zeros where ``mask`` is False."""
        normed = self.norm(hidden).masked_fill(~mask[..., None], 0.0)
        mixed = self.over_time(normed.transpose(1, 2)).transpose(1, 2)
        return hidden + self.dropout(self.narrow(F.silu(self.wide(mixed))))


class Recogniser(nn.Module):
    """A convolutional CTC network with a third of the input's frames."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.front = nn.Conv1d(CEPSTRA, shape.width, 5, stride=STRIDE)
        self.blocks = nn.ModuleList(Block(shape.width) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, CLASSES)

    def frame_lengths(self, lengths: Tensor) -> Tensor:
        """Frames of the output for frames of the input."""
        return torch.div(lengths + STRIDE - 1, STRIDE, rounding_mode="floor")

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits ``(N, ceil(T / 3), 28)``."""
        hidden = self.front(F.pad(frames.transpose(1, 2), (1, 3))).transpose(1, 2)
        mask = lengths_to_mask(self.frame_lengths(lengths), hidden.shape[1])
        for block in self.blocks:
            hidden = block(hidden, mask)
        logits: Tensor = self.head(self.norm(hidden))
        return logits

"""Reads the Free Spoken Digit Dataset from the project's data folder, or from any file in its form."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from _data import data_folder
from torch import Tensor
from torch.utils.data import Dataset

SAMPLE_RATE_HZ = 8_000
FULL_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Clips(Dataset[tuple[Tensor, int]]):
    """Clips of unequal lengths with the digit that is spoken.

    Attributes:
        waves: Samples from -1 to 1, one tensor per clip.
        labels: Digits.
    """

    waves: list[Tensor]
    labels: list[int]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One clip and its digit."""
        return self.waves[index], self.labels[index]

    @property
    def lengths(self) -> list[int]:
        """Samples of each clip."""
        return [len(wave) for wave in self.waves]


def read_spoken_digits(
    file: Path | None = None, *, held_out: str = "theo", most: int | None = None
) -> tuple[Clips, Clips]:
    """Read the clips, those of one speaker apart.

    Args:
        file: Where they are; ``None`` takes the project's data folder.
        held_out: The speaker of the second part.
        most: How many clips to take of each part, spread over all; ``None`` for all.

    Returns:
        Clips to train on, and clips of ``held_out`` to test on.
    """
    with np.load(file or data_folder() / "fsdd" / "fsdd.npz") as arrays:
        samples = torch.from_numpy(arrays["samples"].astype(np.float32) / FULL_SCALE)
        spans, labels = list(pairwise(arrays["offsets"].tolist())), arrays["label"].tolist()
        is_test = arrays["speaker_names"][arrays["speaker"]] == held_out

    def part(chosen: np.ndarray) -> Clips:
        rows = np.flatnonzero(chosen)
        rows = rows if most is None else rows[:: max(1, len(rows) // most)][:most]
        return Clips([samples[slice(*spans[row])] for row in rows], [labels[row] for row in rows])

    return part(~is_test), part(is_test)

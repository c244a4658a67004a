"""Reads the Speech Commands clips from the project's data folder, or from any file in their form."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from _data import data_folder
from torch.utils.data import TensorDataset

SAMPLE_RATE_HZ = 16_000
SOURCE = "sc_v2_test_*.npz: the test set of Speech Commands v0.02, whose speaker-disjoint split is not the official one"


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips of one second ``(N, 16000)``, from -1 to 1, with their classes; no speaker is in both parts.

    Attributes:
        train: Clips to train on.
        test: Clips to test on.
        classes: Names of the classes.
    """

    train: TensorDataset
    test: TensorDataset
    classes: tuple[str, ...]

    @property
    def background(self) -> tuple[int, ...]:
        """Indices of the classes that are no keyword."""
        return tuple(index for index, name in enumerate(self.classes) if name.startswith("_"))


def read_speech_commands(files: Sequence[Path] = (), *, most: int | None = None) -> Clips:
    """Read and decode the clips.

    Args:
        files: Where they are; none takes all files of the project's data folder.
        most: How many clips to take of each part; ``None`` for all.

    Raises:
        FileNotFoundError: If there is no file.
    """
    folder = data_folder() / "speech_commands_v2_test"
    files = files or sorted(folder.glob("sc_v2_test_*.npz"))
    if not files:
        raise FileNotFoundError(f"no sc_v2_test_*.npz in {folder}; set LIGHTNING_KD_DATA to the folder of data sets.")
    parts = [_read(file) for file in files]
    waveforms, labels, is_test = (np.concatenate(columns) for columns in list(zip(*parts, strict=True))[:3])

    def dataset(chosen: np.ndarray) -> TensorDataset:
        rows = np.flatnonzero(chosen)[:most]
        return TensorDataset(torch.from_numpy(waveforms[rows]), torch.from_numpy(labels[rows]).long())

    return Clips(dataset(~is_test), dataset(is_test), parts[0][3])


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    with np.load(file) as arrays:
        blob, offsets = arrays["flac"].tobytes(), arrays["offsets"]
        clips = [_decoded(blob[start:end]) for start, end in pairwise(offsets)]
        classes = tuple(str(name) for name in arrays["classes"])
        return np.stack(clips), arrays["label"], arrays["is_test"].astype(bool), classes


def _decoded(content: bytes) -> np.ndarray:
    """One clip, padded with silence or cut to a second."""
    samples, rate_hz = soundfile.read(io.BytesIO(content), dtype="float32")
    if rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"a clip must have {SAMPLE_RATE_HZ} samples per second, got {rate_hz}.")
    return np.pad(samples[:SAMPLE_RATE_HZ], (0, max(0, SAMPLE_RATE_HZ - len(samples))))

"""Which audio files a data set has, and their samples."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_kd.errors import AudioError, SetupError
from lightning_kd.extras import import_extra
from lightning_kd.speech.collate import checked_wave

SUFFIXES = frozenset({".flac", ".mp3", ".oga", ".ogg", ".wav"})
Samples = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance of a data set.

    Attributes:
        id: Its name, unique in the data set.
        path: Its file.
        text: What is said, if that is known.
    """

    id: str
    path: str
    text: str | None = None


def find_clips(data: str) -> list[Clip]:
    """The utterances of a folder or a manifest, in an order that does not change.

    Args:
        data: A folder, in which all FLAC, MP3, Ogg and WAV files count, with their paths inside it as ids; or a
            ``.jsonl`` manifest with ``"audio"``, a path relative to the manifest, and optionally ``"id"`` and
            ``"text"`` in each line.

    Returns:
        The utterances.

    Raises:
        SetupError: If there are none, or two have the same id.
    """
    place = Path(data)
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        clips = [Clip(path.relative_to(place).as_posix(), str(path)) for path in files]
    elif place.suffix == ".jsonl" and place.is_file():
        lines = place.read_text(encoding="utf-8").splitlines()
        clips = [_from_line(line, place.parent, number) for number, line in enumerate(lines, 1) if line.strip()]
    else:
        raise SetupError(f"`data` must be a folder of audio files or a .jsonl manifest, got {data!r}.")
    if not clips:
        raise SetupError(f"`data` must hold audio files ({', '.join(sorted(SUFFIXES))}), got none in {data!r}.")
    ids = [clip.id for clip in clips]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise SetupError(f'`data` must give every utterance an id of its own, got {twice!r} twice: write "id".')
    return clips


def _from_line(line: str, folder: Path, number: int) -> Clip:
    try:
        entry = json.loads(line)
        audio = str(entry["audio"])
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f'line {number} of the manifest must be JSON with "audio", got {line[:80]!r}.') from error
    text = entry.get("text")
    return Clip(str(entry.get("id", audio)), str(folder / audio), None if text is None else str(text))


def read_clip(path: str, *, sample_rate: int) -> Samples:
    """Samples of an audio file, from -1 to 1.

    Args:
        path: The file.
        sample_rate: The rate it must have, Hz.

    Returns:
        Shape ``(samples,)``, float32.

    Raises:
        AudioError: If the file cannot be read, has several channels, is too short, not finite, or of another rate.
        MissingExtraError: If soundfile is not installed.
    """
    soundfile = import_extra("soundfile", "speech")
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"`{path}` must be an audio file, got: {error}") from error
    if samples.ndim > 1:
        raise AudioError(f"`{path}` must have one channel, got {samples.shape[1]}: mix it down first.")
    wave = checked_wave({"array": samples, "sampling_rate": rate}, sample_rate=sample_rate, name=path)
    return wave.numpy()

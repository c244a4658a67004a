"""Whether a data set gives what the teacher saw, and gives it again: shown on a few samples."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_kd.errors import CacheError, SetupError
from lightning_kd.teachers.cache.fingerprint import describe, transform_of
from lightning_kd.teachers.cache.record import Records
from lightning_kd.teachers.cache.replay import CropReplay, NoReplay, Replay

SAMPLES, VALUES = 8, 32
TOLERANCE = 0.01
_RANDOM = re.compile(
    r"(Random\w*|\w*Jitter|AutoAugment\w*|RandAugment\w*|TrivialAugment\w*|AugMix\w*|ElasticTransform)$"
)
Probe = Mapping[str, Any]


def draw_probes(dataset: Any, replay: Replay) -> tuple[Probe, ...]:
    """Some values of some samples of the first view, after checking that each can be repeated.

    Args:
        dataset: The data set.
        replay: How its augmentation is replayed.

    Returns:
        Sample, view and values of each probe.

    Raises:
        SetupError: If the data set is random in a way that is not replayed.
    """
    _refuse_random_names(dataset, replay)
    return tuple(
        {"sample": index, "view": 0, "values": _values(_repeatable(dataset, replay, index))}
        for index in dict.fromkeys(np.linspace(0, len(dataset) - 1, SAMPLES).astype(int).tolist())
    )


def check_probes(dataset: Any, replay: Replay, probes: Sequence[Probe], records: Sequence[Records]) -> None:
    """Raise `CacheError` if the data set no longer gives what the teacher saw.

    Args:
        dataset: The data set.
        replay: How its augmentation is replayed.
        probes: What the contract has.
        records: The record of each probe, shape ``(1,)``.
    """
    found = [
        {**probe, "values": _values(replay.repeat(dataset, probe["sample"], record)[0])}
        for probe, record in zip(probes, records, strict=True)
    ]
    compare_probes(probes, found)


def compare_probes(seen: Sequence[Probe], found: Sequence[Probe]) -> None:
    """Raise `CacheError` if probes differ by more than libraries round.

    Args:
        seen: Those of the contract.
        found: Those of the present data set.
    """
    for old, new in zip(seen, found, strict=True):
        tolerance = TOLERANCE * max(1.0, *map(abs, old["values"]))
        pairs = list(zip(old["values"], new["values"], strict=False))
        if len(old["values"]) != len(new["values"]) or max(abs(a - b) for a, b in pairs) > tolerance:
            raise CacheError(
                f"`dataset` gives another sample {old['sample']} than the teacher saw: its order, files or transforms "
                "are others, or those of a library. Restore them, or write the cache to another folder."
            )


def _refuse_random_names(dataset: Any, replay: Replay) -> None:
    if not isinstance(replay, NoReplay | CropReplay):
        return
    description = [transform_of(dataset), describe(replay)]
    found = next((name for name in _classes(description) if _RANDOM.search(name)), None)
    if found is not None:
        raise SetupError(
            f"`dataset` draws {found.rpartition('.')[2]} anew each time, so the student would not see what the teacher "
            "saw: pass replay=SeededReplay(), which stores a seed, or leave out random transforms and pass CropReplay."
        )


def _classes(description: Any) -> Iterator[str]:
    if isinstance(description, Mapping):
        name = description.get("class")
        yield from [name] if isinstance(name, str) else []
        yield from chain.from_iterable(_classes(part) for part in description.values())
    elif isinstance(description, list):
        yield from chain.from_iterable(map(_classes, description))


def _repeatable(dataset: Any, replay: Replay, index: int) -> Any:
    first, second = (replay.draw(dataset, index, view=0)[0] for _ in range(2))
    for one, other in zip(_arrays(first), _arrays(second), strict=True):
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            cure = (
                "random augmentation needs a stored seed, replay=SeededReplay(), or CropReplay"
                if isinstance(replay, NoReplay)
                else "it draws from a generator of its own; let it draw from those of random, numpy.random or torch"
            )
            raise SetupError(f"`dataset` gives another sample {index} each time, under {replay!r}: {cure}.")
    return first


def _arrays(sample: Any) -> list[np.ndarray]:
    leaves, _ = torch.utils._pytree.tree_flatten(sample)  # noqa: SLF001 - the one that DataLoader's collation follows
    return [leaf.detach().numpy() if isinstance(leaf, Tensor) else np.asarray(leaf) for leaf in leaves]


def _values(sample: Any) -> list[float]:
    """Evenly spaced values of the largest array of a sample."""
    numbers = [array for array in _arrays(sample) if array.dtype.kind in "fiub" and array.size]
    if not numbers:
        raise SetupError(f"`dataset` must have samples with numbers, got {type(sample).__name__}.")
    flat = max(numbers, key=lambda array: array.size).reshape(-1)
    places = np.linspace(0, flat.size - 1, min(VALUES, flat.size)).astype(int)
    return [round(float(value), 6) for value in flat[places]]

"""What a CTC network says: its best path, or its most probable transcripts by prefix beam search."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from lightning_kd._checks import check_positive
from lightning_kd.errors import ShapeError


class Hypothesis(NamedTuple):
    """One transcript of an utterance.

    Attributes:
        labels: Class indices without blanks.
        log_probability: Natural logarithm of its probability, summed over the alignments that were looked at.
    """

    labels: tuple[int, ...]
    log_probability: float = 0.0


class _Mass(NamedTuple):
    """Log-probability of a prefix whose last frame was a blank, or its last label."""

    blank: float
    label: float

    @property
    def total(self) -> float:
        return log_add(self.blank, self.label)


def log_add(first: float, second: float) -> float:
    """Logarithm of the sum of two numbers given by their logarithms.

    Example:
        >>> log_add(-math.inf, 0.0)
        0.0
    """
    low, high = sorted((first, second))
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def collapse(path: Sequence[int], *, blank: int) -> tuple[int, ...]:
    """Merge repeated labels of an alignment, then leave out its blanks.

    Args:
        path: One class index per frame.
        blank: Index of the blank.

    Returns:
        The labels.

    Example:
        >>> collapse([0, 0, 2, 0, 1, 1, 2], blank=2)
        (0, 0, 1)
    """
    starts = [label for index, label in enumerate(path) if index == 0 or label != path[index - 1]]
    return tuple(label for label in starts if label != blank)


def greedy_search(logits: Tensor, mask: Tensor | None = None, *, blank: int) -> list[Hypothesis]:
    """The labels along the most probable path of each utterance.

    Args:
        logits: Unnormalised scores, shape ``(N, T, V)``.
        mask: True where a frame belongs to the utterance, boolean ``(N, T)``, a run from the first frame on; ``None``
            counts all.
        blank: Index of the blank.

    Returns:
        One hypothesis per utterance, with the log-probability of its path.

    Raises:
        ShapeError: If ``logits`` has not three axes or no class ``blank``.

    Example:
        >>> import torch
        >>> greedy_search(torch.eye(3)[None, [0, 2, 0]] * 100, blank=2)
        [Hypothesis(labels=(0, 0), log_probability=0.0)]
    """
    check_blank(logits, blank)
    best, path = F.log_softmax(logits.float(), dim=-1).max(dim=-1)
    lengths = frame_counts(logits, mask)
    return [
        Hypothesis(collapse(labels[:length], blank=blank), math.fsum(values[:length]))
        for labels, values, length in zip(path.tolist(), best.tolist(), lengths, strict=True)
    ]


def beam_search(
    logits: Tensor, *, blank: int, beams: int = 16, hypotheses: int = 4, classes: int | None = 8
) -> list[Hypothesis]:
    """The most probable transcripts of one utterance, alignments of the same transcript added up.

    Args:
        logits: Unnormalised scores of one utterance, shape ``(T, V)``.
        blank: Index of the blank.
        beams: Prefixes kept after each frame.
        hypotheses: How many are returned at most.
        classes: How many of a frame's best classes may extend a prefix, beside the blank; ``None`` allows all.

    Returns:
        Hypotheses, most probable first.

    Raises:
        ShapeError: If ``logits`` has not two axes or no class ``blank``.
        ValueError: If a number is not above 0.

    Example:
        >>> import torch
        >>> frame = torch.tensor([0.6, 0.4]).log()  # the path "blank blank" is less probable than the label "0"
        >>> found = beam_search(torch.stack([frame, frame]), blank=1)
        >>> [(h.labels, round(math.exp(h.log_probability), 2)) for h in found]
        [((0,), 0.84), ((), 0.16)]
    """
    for name, value in (("beams", beams), ("hypotheses", hypotheses)):
        check_positive(name, value)
    check_blank(logits[None], blank)
    scores = F.log_softmax(logits.double(), dim=-1)
    prefixes: dict[tuple[int, ...], _Mass] = {(): _Mass(0.0, -math.inf)}
    for frame in scores:
        prefixes = _pruned(_extended(prefixes, _candidates(frame, blank, classes), blank), beams)
    ranked = sorted(prefixes.items(), key=lambda item: -item[1].total)
    return [Hypothesis(labels, mass.total) for labels, mass in ranked[:hypotheses]]


def _candidates(frame: Tensor, blank: int, classes: int | None) -> list[tuple[int, float]]:
    """Classes that may follow, with their log-probability; the blank always may."""
    count = len(frame) if classes is None else min(classes, len(frame))
    values, indices = frame.topk(count)
    chosen = dict(zip(indices.tolist(), values.tolist(), strict=True))
    return list({**chosen, blank: float(frame[blank])}.items())


def _extended(
    prefixes: dict[tuple[int, ...], _Mass], candidates: list[tuple[int, float]], blank: int
) -> dict[tuple[int, ...], _Mass]:
    """Every prefix after one more frame."""
    grown: dict[tuple[int, ...], _Mass] = defaultdict(lambda: _Mass(-math.inf, -math.inf))
    for prefix, mass in prefixes.items():
        for label, score in candidates:
            if label == blank:
                same = grown[prefix]
                grown[prefix] = same._replace(blank=log_add(same.blank, mass.total + score))
                continue
            # A label that repeats the last one continues it, and is a new one only after a blank.
            repeats = bool(prefix) and prefix[-1] == label
            if repeats:
                same = grown[prefix]
                grown[prefix] = same._replace(label=log_add(same.label, mass.label + score))
            longer = grown[*prefix, label]
            before = mass.blank if repeats else mass.total
            grown[*prefix, label] = longer._replace(label=log_add(longer.label, before + score))
    return grown


def _pruned(prefixes: dict[tuple[int, ...], _Mass], beams: int) -> dict[tuple[int, ...], _Mass]:
    possible = [item for item in prefixes.items() if item[1].total > -math.inf]
    return dict(sorted(possible, key=lambda item: -item[1].total)[:beams])


def frame_counts(logits: Tensor, mask: Tensor | None) -> list[int]:
    """How many frames of each utterance count, for logits ``(N, T, V)``."""
    if mask is None:
        return [logits.shape[1]] * logits.shape[0]
    return [int(count) for count in mask.sum(dim=1).tolist()]


def check_blank(logits: Tensor, blank: int) -> None:
    """Raise `ShapeError` unless ``logits`` are ``(N, T, V)`` with a class ``blank``."""
    if logits.ndim != 3:
        raise ShapeError(f"`logits` must have shape (N, T, V), got {tuple(logits.shape)}.")
    if not 0 <= blank < logits.shape[-1]:
        raise ShapeError(
            f"`blank` must be one of the {logits.shape[-1]} classes, from 0 on, got {blank}: it is the label set's "
            "index of the blank (config.pad_token_id of transformers' CTC models)."
        )

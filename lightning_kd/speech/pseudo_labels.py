"""Transcripts that a teacher wrote, kept in a folder that can be local or in an object store."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import fsspec

from lightning_kd.errors import SetupError

SETTINGS = "settings.json"
_UNFINISHED = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabel:
    """What a teacher heard in one utterance.

    Attributes:
        id: Name of the utterance, unique in its data set.
        audio: Where its samples are.
        seconds: Its duration, s.
        text: The transcript.
        tokens: Its tokens, with timestamps if the teacher wrote some, without prompt and end.
        scores: How sure the teacher is, by name: those of `TokenScores`, and others.
        reference: What was said, if the data set knows.
    """

    id: str
    audio: str
    seconds: float
    text: str
    tokens: tuple[int, ...]
    scores: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None

    def with_score(self, name: str, value: float) -> "PseudoLabel":
        """The same with one more score.

        Args:
            name: What it is called.
            value: Its value.
        """
        return replace(self, scores={**self.scores, name: value})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "PseudoLabel":
        """Read what `to_json` wrote.

        Args:
            line: One line of JSON.

        Raises:
            SetupError: If it is something else.
        """
        try:
            values = json.loads(line)
            return cls(**{**values, "tokens": tuple(values["tokens"])})
        except (KeyError, TypeError, ValueError) as error:
            names = [entry.name for entry in fields(cls)]
            raise SetupError(f"a pseudo-label must be JSON with {names}, got {line[:80]!r}: {error}.") from error


class PseudoLabelStore:
    """A folder of pseudo-labels that several processes write and any may stop writing at any time.

    Every batch is written whole into a file of its own, under a name that no other process uses, and takes that name
    only when it is complete. What has been written is never written again: whoever goes on asks `done` first. Full
    batches of one process are merged into larger files on the way, the merged file appearing before its parts go; so a
    pseudo-label may for a moment be there twice, and is read once.

    Args:
        url: A folder, or anything that fsspec opens: ``"s3://bucket/folder"``.
        rank: Number of this process, from 0 on.
        shard_size: Pseudo-labels in a merged file.

    Example:
        >>> store = PseudoLabelStore("memory://labels")
        >>> store.write([PseudoLabel(id="a", audio="a.wav", seconds=1.0, text="so", tokens=(7,))])
        >>> store.done(), next(iter(store.read())).text
        ({'a'}, 'so')
    """

    def __init__(self, url: str, *, rank: int = 0, shard_size: int = 1024) -> None:
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SetupError(f"`out` must be a folder or a URL that fsspec opens, got {url!r}: {error}.") from error
        self.rank = rank
        self.shard_size = shard_size
        self._files.makedirs(self._root, exist_ok=True)
        self._next = 1 + max((_number(name) for name in self._names(rank=rank)), default=-1)
        self._parts = [name for name in self._names(rank=rank) if name.startswith("part-")]
        self._in_parts = sum(len(self._lines(name)) for name in self._parts)
        self._settings: dict[str, Any] | None = None

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Note with which settings the pseudo-labels are made, once some are; refuse to mix them with others.

        Args:
            settings: Values that JSON can hold.

        Raises:
            SetupError: If the folder holds pseudo-labels of other settings.
        """
        path = f"{self._root}/{SETTINGS}"
        if not self._files.exists(path):
            self._settings = dict(settings)
            return
        with self._files.open(path, "r", encoding="utf-8") as file:
            found = json.load(file)
        differing = {
            name: (found.get(name), settings.get(name))
            for name in sorted(found.keys() | settings.keys())
            if found.get(name) != settings.get(name)
        }
        if differing:
            name, (before, now) = next(iter(differing.items()))
            raise SetupError(
                f"`out` holds pseudo-labels that were made with {name}={before!r}, got {now!r}: write these to another "
                "folder, or go on with the same settings."
            )

    def done(self) -> set[str]:
        """Ids of the pseudo-labels that are there, of all processes."""
        return {label.id for label in self.read()}

    def read(self) -> Iterator[PseudoLabel]:
        """Every pseudo-label once, in the order of the files' names."""
        seen: set[str] = set()
        for name in self._names():
            for line in self._lines(name):
                label = PseudoLabel.from_json(line)
                if label.id not in seen:
                    seen.add(label.id)
                    yield label

    def write(self, labels: Sequence[PseudoLabel]) -> None:
        """Keep finished pseudo-labels; when this returns they are safe.

        Args:
            labels: At least one.
        """
        if self._settings is not None:
            self._write_whole(SETTINGS, json.dumps(self._settings, indent=1) + "\n")
            self._settings = None
        name = self._new_name("part")
        self._write_whole(name, _joined(label.to_json() for label in labels))
        self._parts.append(name)
        self._in_parts += len(labels)
        if self._in_parts >= self.shard_size:
            self.merge()

    def merge(self) -> None:
        """Put what this process wrote in small files into one."""
        if len(self._parts) > 1:
            self._write_whole(
                self._new_name("shard"), _joined(line for name in self._parts for line in self._lines(name))
            )
            for name in self._parts:
                self._files.rm_file(f"{self._root}/{name}")
        self._parts, self._in_parts = [], 0

    def _new_name(self, kind: str) -> str:
        number, self._next = self._next, self._next + 1
        return f"{kind}-{self.rank:05d}-{number:06d}.jsonl"

    def _names(self, *, rank: int | None = None) -> list[str]:
        """Names of the complete files, of one process or of all."""
        listed = [str(entry).rsplit("/", 1)[-1] for entry in self._files.ls(self._root, detail=False)]
        whose = "" if rank is None else f"-{rank:05d}-"
        return sorted(name for name in listed if name.endswith(".jsonl") and whose in name)

    def _lines(self, name: str) -> list[str]:
        with self._files.open(f"{self._root}/{name}", "r", encoding="utf-8") as file:
            return [line for line in file.read().splitlines() if line]

    def _write_whole(self, name: str, text: str) -> None:
        unfinished = f"{self._root}/{name}.{self.rank}{_UNFINISHED}"
        with self._files.open(unfinished, "w", encoding="utf-8") as file:
            file.write(text)
        self._files.mv(unfinished, f"{self._root}/{name}")


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _number(name: str) -> int:
    return int(name.removesuffix(".jsonl").rsplit("-", 1)[-1])


def read_pseudo_labels(url: str) -> list[PseudoLabel]:
    """The pseudo-labels that `lightning-kd pseudo-label` wrote.

    Args:
        url: The folder, or a URL that fsspec opens.

    Returns:
        One entry per utterance.

    Raises:
        SetupError: If there is none.
    """
    labels = list(PseudoLabelStore(url).read())
    if not labels:
        raise SetupError(f"`url` must be a folder with pseudo-labels, got {url!r}, which has none.")
    return labels

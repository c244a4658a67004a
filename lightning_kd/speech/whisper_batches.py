"""Batches of pseudo-labels for Whisper: some with timestamps, some with what was said before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_kd._checks import check_fraction, check_positive
from lightning_kd.errors import TranscriptError

IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperTokens:
    """The special tokens that frame a transcript.

    Attributes:
        prefix: Start of transcript, language and task, as far as the model has them.
        no_timestamps: Says that none follow.
        previous: Start of what was said before.
        first_timestamp: Index of 0.00 s; all from it on are timestamps.
        end: End of transcript.
    """

    prefix: tuple[int, ...]
    no_timestamps: int
    previous: int
    first_timestamp: int
    end: int

    @classmethod
    def of(cls, tokenizer: Any, *, language: str | None = None, task: str | None = None) -> "WhisperTokens":
        """Read them from a tokenizer.

        Args:
            tokenizer: ``WhisperTokenizer`` of the teacher's checkpoint.
            language: Code of the language, such as ``"en"``; ``None`` for an English-only model.
            task: ``"transcribe"`` or ``"translate"``; ``None`` for an English-only model.

        Returns:
            The tokens.

        Raises:
            TranscriptError: If the tokenizer has not such a token: it is not the teacher's.
        """

        def index(name: str) -> int:
            vocabulary = tokenizer.get_vocab()
            if name not in vocabulary:
                raise TranscriptError(
                    f"`tokenizer` must have the token {name!r}, got one of {len(vocabulary)} tokens without it: load "
                    "the teacher's own, and a language and task that it knows."
                )
            return int(vocabulary[name])

        names = ["<|startoftranscript|>", *(f"<|{part}|>" for part in (language, task) if part is not None)]
        no_timestamps = index("<|notimestamps|>")
        return cls(
            prefix=tuple(index(name) for name in names),
            no_timestamps=no_timestamps,
            previous=index("<|startofprev|>"),
            first_timestamp=no_timestamps + 1,
            end=index("<|endoftext|>"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperCollator:
    """Makes a batch of a Whisper student and its teacher from utterances with pseudo-labels.

    An utterance is a mapping with ``"input_features"``, mel frames ``(mels, frames)``, or with ``"audio"``, samples
    that ``extractor`` turns into such; ``"tokens"``, the teacher's transcript with its timestamps, without prefix and
    end; and optionally ``"previous"``, the tokens of the transcript before it.

    A batch holds ``input_features``, ``decoder_input_ids`` and ``labels``, ready for ``model(**batch)``. Labels are
    already shifted by one token. They are -100, which counts in no loss, at padding and up to the start of transcript
    where something was said before.

    Attributes:
        tokens: The special tokens.
        extractor: ``WhisperFeatureExtractor`` of the teacher, for utterances with ``"audio"``.
        timestamps: Probability that the timestamps of an utterance stay, from 0 to 1; else the no-timestamps token
            takes their place.
        previous: Probability that what was said before is put in front, from 0 to 1.
        positions: Most tokens that the decoder has positions for; at most half of them are what was said before.

    Raises:
        TranscriptError: On use, if a transcript is empty or too long.
        ValueError: If a probability is out of range.

    Source:
        Gandhi, von Platen and Rush, "Distil-Whisper", arXiv:2311.00430, in the form of its code.

    Example:
        >>> tokens = WhisperTokens(prefix=(50,), no_timestamps=51, previous=52, first_timestamp=53, end=59)
        >>> collate = WhisperCollator(tokens=tokens, timestamps=0.0, previous=0.0)
        >>> batch = collate([{"input_features": torch.zeros(2, 8), "tokens": [53, 7, 8, 54]}])
        >>> batch["decoder_input_ids"].tolist(), batch["labels"].tolist()
        ([[50, 51, 7, 8]], [[51, 7, 8, 59]])
    """

    tokens: WhisperTokens
    extractor: Any = None
    timestamps: float = 0.2
    previous: float = 0.2
    positions: int = 448

    def __post_init__(self) -> None:
        """Check the values."""
        check_fraction("timestamps", self.timestamps)
        check_fraction("previous", self.previous)
        check_positive("positions", self.positions)

    def __call__(self, utterances: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make a batch.

        Args:
            utterances: At least one.

        Returns:
            ``input_features`` of shape ``(N, mels, frames)``, ``decoder_input_ids`` and ``labels`` of shape ``(N, L)``.
        """
        rows = [self._sequence(utterance) for utterance in utterances]
        inputs = [torch.tensor(sequence[:-1]) for sequence, _ in rows]
        labels = [torch.tensor([IGNORED] * hidden + sequence[1 + hidden :]) for sequence, hidden in rows]
        return {
            "input_features": torch.stack([self._features(utterance) for utterance in utterances]),
            "decoder_input_ids": pad_sequence(inputs, batch_first=True, padding_value=self.tokens.end),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        }

    def _sequence(self, utterance: Mapping[str, Any]) -> tuple[list[int], int]:
        """All tokens of an utterance, and how many labels at its front do not count."""
        special = self.tokens
        tokens = [int(token) for token in utterance["tokens"]]
        words = [token for token in tokens if token < special.first_timestamp]
        if not words:
            raise TranscriptError(
                "`tokens` must hold a transcript, got an empty one: leave such utterances out with "
                "lightning_kd.speech.filters.no_silence."
            )
        timed = len(words) < len(tokens) and _happens(self.timestamps)
        body = [*special.prefix, *(tokens if timed else [special.no_timestamps, *words]), special.end]
        room = self.positions + 1 - len(body)
        if room < 0:
            raise TranscriptError(
                f"`tokens` must fit into {self.positions} positions, got {len(body) - 1}: filter it out."
            )
        before = [int(token) for token in utterance.get("previous") or () if token < special.first_timestamp]
        kept = min(self.positions // 2, room) - 1
        if not before or kept < 1 or not _happens(self.previous):
            return body, 0
        prompt = [special.previous, *before[-kept:]]
        return prompt + body, len(prompt)

    def _features(self, utterance: Mapping[str, Any]) -> Tensor:
        if "input_features" in utterance:
            return torch.as_tensor(utterance["input_features"])
        if self.extractor is None:
            raise TranscriptError('`extractor` must be given for utterances with "audio", got None.')
        made = self.extractor(utterance["audio"], sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        features: Tensor = made.input_features[0]
        return features


def _happens(probability: float) -> bool:
    return bool(torch.rand(()) < probability)

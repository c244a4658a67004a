"""Transcripts as text: normalisation, error rates, and signs that one was made up."""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_kd._checks import check_positive
from lightning_kd.errors import TranscriptError
from lightning_kd.extras import import_extra

Normalizer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Edits between references and hypotheses.

    Attributes:
        edits: Substitutions, deletions and insertions.
        length: Words or characters of the references.
    """

    edits: int
    length: int

    @property
    def rate(self) -> float:
        """Edits over length; above 1 where more was inserted than there is."""
        return self.edits / self.length

    @property
    def percent(self) -> float:
        """The rate in per cent."""
        return 100.0 * self.rate


def whisper_normalizer(language: str | None, *, spelling: Mapping[str, str] | None = None) -> Normalizer:
    """The normaliser that Whisper's word error rates are computed with.

    English text is put in lower case and American spelling, without bracketed remarks and fillers, contractions written
    out and numbers as digits; text in other languages loses case, brackets and symbols.

    Args:
        language: Name or code of the language, ``"english"`` or ``"en"``; ``None`` for any other.
        spelling: British words to American ones, ``tokenizer.english_spelling_normalizer`` of a Whisper checkpoint;
            ``None`` leaves spellings as they are.

    Returns:
        A function of text.

    Raises:
        MissingExtraError: If transformers is not installed.

    Example:
        >>> whisper_normalizer("en")("Mr. Smith can't come [laughs] at twenty-one!")
        'mister smith can not come at 21'
    """
    normalizers: Any = import_extra("transformers.models.whisper.english_normalizer", "speech")
    if language is not None and language.lower() in ("en", "english"):
        english = normalizers.EnglishTextNormalizer(dict(spelling or {}))
        return lambda text: english(text).strip()
    basic = normalizers.BasicTextNormalizer()
    return lambda text: basic(text).strip()


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Word errors of transcripts, counted together.

    Args:
        references: What was said; none may be empty.
        hypotheses: What was recognised.

    Returns:
        The count.

    Raises:
        MissingExtraError: If jiwer is not installed.
        TranscriptError: If a reference is empty, or the numbers differ.

    Example:
        >>> word_errors(["the cat sat"], ["the cat sat down"])
        ErrorRate(edits=1, length=3)
    """
    _check_references(references, hypotheses)
    found = import_extra("jiwer", "speech").process_words(list(references), list(hypotheses))
    return _counted(found)


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """Character errors of transcripts, spaces included, counted together.

    Args:
        references: What was said; none may be empty.
        hypotheses: What was recognised.

    Returns:
        The count.

    Raises:
        MissingExtraError: If jiwer is not installed.
        TranscriptError: If a reference is empty, or the numbers differ.

    Example:
        >>> character_errors(["cat"], ["cut"])
        ErrorRate(edits=1, length=3)
    """
    _check_references(references, hypotheses)
    found = import_extra("jiwer", "speech").process_characters(list(references), list(hypotheses))
    return _counted(found)


def _counted(found: Any) -> ErrorRate:
    edits = found.substitutions + found.deletions + found.insertions
    return ErrorRate(edits, found.hits + found.substitutions + found.deletions)


def _check_references(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise TranscriptError(f"`hypotheses` must be as many as references, {len(references)}, got {len(hypotheses)}.")
    empty = [index for index, text in enumerate(references) if not text.strip()]
    if empty or not references:
        raise TranscriptError(
            f"`references` must be transcripts with at least one word, got {len(empty)} empty ones, the first at index "
            f"{empty[0] if empty else None}: an error rate over no words is not defined. Leave them out."
        )


def compression_ratio(text: str) -> float:
    """Bytes of a text over those of its compressed form; above 2.4 it mostly repeats itself.

    Args:
        text: The text.

    Returns:
        The ratio, dimensionless; 0 of an empty text.

    Example:
        >>> compression_ratio("no no no no no no no no no no no no no no") > 2.4 > compression_ratio("a short line")
        True
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def repeated_share(text: str, *, words: int = 5) -> float:
    """Share of a text's runs of words that occur more than once.

    Args:
        text: The text.
        words: Length of a run.

    Returns:
        From 0 to 1; 0 of a text shorter than a run.

    Raises:
        ValueError: If ``words`` is not above 0.

    Example:
        >>> repeated_share("on and on and on and on", words=2)
        1.0
    """
    check_positive("words", words)
    parts = text.split()
    runs = Counter(tuple(parts[index : index + words]) for index in range(len(parts) - words + 1))
    total = sum(runs.values())
    return sum(count for count in runs.values() if count > 1) / total if total else 0.0


def is_shouted(text: str) -> bool:
    """Whether all letters of a text are upper case, as in subtitles of doubtful origin.

    Example:
        >>> is_shouted("GO ON 1"), is_shouted("Go on"), is_shouted("123")
        (True, False, False)
    """
    return text.isupper()

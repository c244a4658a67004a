"""Preprocessing as JSON."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from exporters.preprocessing.image import ImagePreprocessing
from exporters.preprocessing.logmel import LogMelPreprocessing

Preprocessing: TypeAlias = ImagePreprocessing | LogMelPreprocessing

_KINDS: Mapping[str, type[ImagePreprocessing] | type[LogMelPreprocessing]] = {
    "image": ImagePreprocessing,
    "logmel": LogMelPreprocessing,
}


def preprocessing_from_content(content: Mapping[str, Any]) -> Preprocessing:
    """Read the JSON object of a preprocessing.

    Raises:
        ValueError: If it is of an unknown kind or has values out of range.
        TypeError: If it has unknown fields.

    Example:
        >>> preprocessing_from_content(ImagePreprocessing().to_content()) == ImagePreprocessing()
        True
    """
    kind: Any = content.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"`kind` of a preprocessing must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}.")
    return _KINDS[kind].from_content(content)

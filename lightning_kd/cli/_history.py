"""Options that name a history of latencies, and times in it."""

import os
import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from jsonargparse import ArgumentParser

from exporters.profiling import Profile
from exporters.profiling.history import History

VARIABLE = "LIGHTNING_KD_HISTORY"
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def add_history_option(parser: ArgumentParser, purpose: str) -> None:
    """Add ``--history``."""
    parser.add_argument("--history", metavar="FILE", help=f"SQLite file {purpose} (default: ${VARIABLE}, if set)")


def find_history(options: Any) -> History | None:
    """The history that ``--history`` names, or else the environment; ``None`` without either."""
    path = options.history or os.environ.get(VARIABLE)
    return History(path) if path else None


def need_history(parser: ArgumentParser, options: Any) -> History:
    """The history; no name for it is an error of ``parser``."""
    history = find_history(options)
    if history is None:
        parser.error(f"`--history` must name the file, got none and ${VARIABLE} is not set")
    return history


def record(history: History, profiles: Sequence[Profile]) -> str:
    """Add profiles, and return a sentence that says so."""
    for profile in profiles:
        history.add(profile)
    return f"Added {len(profiles)} to the history in {history.path}."


def moment(text: str | datetime) -> datetime:
    """Read a time: so long ago (``36h``, ``7d``, ``2w``), or a date with or without a time, local if without a zone.

    Example:
        >>> moment("2026-03-20T12:00+00:00").isoformat()
        '2026-03-20T12:00:00+00:00'
    """
    if isinstance(text, datetime):  # jsonargparse reads what was read once more.
        return text
    ago = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if ago:
        return datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise ArgumentTypeError(f"must be like 36h, 7d, 2w or 2026-03-20, got {text!r}") from error

"""Profiles over time, in one SQLite file that the user names: what was measured, when, with every raw latency."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporters.errors import HistoryError
from exporters.profiling.result import Profile
from exporters.profiling.subject import SCHEMA_VERSION as PROFILE_VERSION

FILE_VERSION = 1
_WAIT_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE profiles (
    id INTEGER PRIMARY KEY,
    recorded_at TEXT NOT NULL,
    artifact_sha256 TEXT NOT NULL,
    name TEXT NOT NULL,
    device TEXT NOT NULL,
    threads INTEGER,
    batch_size INTEGER NOT NULL,
    profile_version INTEGER NOT NULL,
    profile TEXT NOT NULL
);
CREATE INDEX profiles_by_artifact ON profiles (artifact_sha256, recorded_at);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A profile in a history.

    Args:
        recorded_at: When it was added, UTC.
        profile: The profile, with its raw latencies.
    """

    recorded_at: datetime
    profile: Profile


class History:
    """Profiles in a SQLite file, which is made when the first one is added.

    Args:
        path: The file. Several processes may add to it at the same time.

    Raises:
        HistoryError: By every method, if the file cannot be opened, is no history, or is one of another version.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     History(f"{folder}/latency.sqlite").entries()
        []
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def add(self, profile: Profile, *, recorded_at: datetime | None = None) -> None:
        """Add a profile.

        Args:
            profile: What was measured; of an artifact, since a session has nothing to be known by later.
            recorded_at: When, with a time zone; now if ``None``.

        Raises:
            ValueError: If the profile is one of a session, or ``recorded_at`` has no time zone.
        """
        subject = profile.subject
        if subject.artifact_sha256 is None:
            raise ValueError(
                f"`profile` must be one of an artifact, got one of a session ({subject.name}); profile the file."
            )
        row = (
            _as_text(datetime.now(UTC) if recorded_at is None else recorded_at),
            subject.artifact_sha256,
            subject.name,
            profile.device,
            profile.threads,
            subject.batch_size,
            PROFILE_VERSION,
            profile.to_json(),
        )
        with self._connection(create=True) as connection, connection:
            connection.execute(
                "INSERT INTO profiles (recorded_at, artifact_sha256, name, device, threads, batch_size,"
                " profile_version, profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def entries(self, *, artifact_sha256: str | None = None) -> list[Entry]:
        """Everything that was added, oldest first.

        Args:
            artifact_sha256: Hash of the only artifact to look for; ``None`` for all.

        Raises:
            HistoryError: If an entry is of another schema version of profiles.
        """
        if not self.path.exists():
            return []
        with self._connection(create=False) as connection:
            rows = connection.execute(
                "SELECT recorded_at, profile_version, profile FROM profiles"
                " WHERE ?1 IS NULL OR artifact_sha256 = ?1 ORDER BY recorded_at, id",
                (artifact_sha256,),
            ).fetchall()
        others = {version for _, version, _ in rows} - {PROFILE_VERSION}
        if others:
            raise HistoryError(
                f"`history` must hold profiles of schema version {PROFILE_VERSION}, got {self.path} with some of "
                f"version {', '.join(map(str, sorted(others)))}; start a new file and measure again."
            )
        return [
            Entry(recorded_at=datetime.fromisoformat(when), profile=Profile.from_json(text)) for when, _, text in rows
        ]

    @contextmanager
    def _connection(self, *, create: bool) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_SECONDS)) as connection:
                self._check(connection, create=create)
                yield connection
        except sqlite3.Error as error:
            raise HistoryError(
                f"`history` must be a SQLite file that can be read and written, got {self.path}: {error}."
            ) from error

    def _check(self, connection: sqlite3.Connection, *, create: bool) -> None:
        """Make the tables in an empty file, and refuse what is not a history of this version."""
        with connection:
            if create:
                # Taken before looking, so that two processes do not both find the file empty.
                connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if create and version == 0 and tables == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FILE_VERSION}")
                return
        if version != FILE_VERSION:
            raise HistoryError(
                f"`history` must be a file of version {FILE_VERSION} written by this package, got {self.path} of "
                f"version {version} with {tables} tables; name another file."
            )


def _as_text(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError(f"`recorded_at` must have a time zone, got {time.isoformat()}; use datetime.now(UTC).")
    return time.astimezone(UTC).isoformat(timespec="microseconds")

"""What was measured, and the one JSON form of every result."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from exporters.signature import TensorSpec

SCHEMA_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was measured.

    Args:
        name: File name of the artifact, or class name of the session.
        artifact_sha256: Hash of the artifact; ``None`` for a session.
        inputs: Names, shapes and dtypes of the arrays that it ran on.
        batch_size: Samples per run.
        seed: Seed of the random inputs; ``None`` if the user gave them.
        properties: Settings in effect, read back from the runtime.
        load_ms: Time from the file to a session ready to run, ms: checksums and compilation included, the import of
            the runtime not; ``None`` for a session.
    """

    name: str
    artifact_sha256: str | None
    inputs: tuple[TensorSpec, ...]
    batch_size: int
    seed: int | None
    properties: Mapping[str, str | int | float]
    load_ms: float | None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of a subject."""
        inputs = tuple(TensorSpec.from_content(spec) for spec in content["inputs"])
        return cls(**{**content, "inputs": inputs})


def dump_result(kind: str, content: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """One line of JSON: what kind of result of which schema version, its content, and figures for other readers."""
    head = {"schema": kind, "schema_version": SCHEMA_VERSION}
    return json.dumps({**head, "summary": summary, **content}, allow_nan=False) + "\n"


def load_result(kind: str, text: str) -> dict[str, Any]:
    """Content of a result that `dump_result` wrote, without its summary.

    Args:
        kind: Expected kind of result.
        text: The JSON object.

    Returns:
        The content by field name.

    Raises:
        ValueError: If ``text`` is not JSON, or not a result of this kind and schema version.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"`text` must be JSON, got {text[:40]!r}: {error}.") from error
    if not isinstance(content, dict) or content.get("schema") != kind:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"`text` must be a result of schema {kind!r}, got {found!r}.")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"`text` must have schema version {SCHEMA_VERSION}, got {content.get('schema_version')!r}; measure again."
        )
    return {name: value for name, value in content.items() if name not in ("schema", "schema_version", "summary")}

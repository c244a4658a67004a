"""Packages of the same bytes for the same network: coremltools writes random identifiers and the date."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DATE = "com.github.apple.coremltools.conversion_date"
_DEBUG = "executorch_debug_handle_mapping.json"


def save(model: Any, path: Path) -> None:
    """Save a converted model as a package whose bytes depend on the model alone.

    The date is left out, identifiers are derived from the contents, and the specification is written in one order.

    Args:
        model: What coremltools converted.
        path: The package folder.
    """
    model.user_defined_metadata.pop(_DATE, None)
    model.save(str(path))
    (path / _DEBUG).unlink(missing_ok=True)
    manifest = path / "Manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    root = content["itemInfoEntries"][content["rootModelIdentifier"]]
    (path / "Data" / root["path"]).write_bytes(model.get_spec().SerializeToString(deterministic=True))
    entries = {_identifier(path, entry): entry for entry in content["itemInfoEntries"].values()}
    # Whatever opens a package writes the manifest again in this order.
    content["itemInfoEntries"] = dict(sorted(entries.items()))
    content["rootModelIdentifier"] = _identifier(path, root)
    manifest.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def _identifier(path: Path, entry: Mapping[str, str]) -> str:
    """A UUID of version 5 that follows from the bytes of a file, or of all files of a folder."""
    item = path / "Data" / entry["path"]
    digest = hashlib.sha256()
    for file in sorted(item.rglob("*")) if item.is_dir() else [item]:
        digest.update(file.read_bytes())
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{entry['path']} {digest.hexdigest()}"))

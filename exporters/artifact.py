"""An exported network on disk: its files, and a JSON manifest beside them that says what they are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from exporters.audit import PrecisionAudit
from exporters.errors import ArtifactError
from exporters.parity import OutputParity, ParityReport, Precision, Tolerance
from exporters.quantization.report import QuantizationReport
from exporters.signature import DimensionRange, Signature, TensorSpec
from exporters.task import TaskReport

SCHEMA_VERSION = 2
MANIFEST_SUFFIX = ".manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of an artifact.

    Args:
        name: Path relative to the manifest's folder, with forward slashes.
        size_bytes: Size of the file.
        sha256: SHA-256 of its content, in hexadecimal.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An exported network and everything known about it.

    Args:
        path: The file (or package folder) that the runtime loads.
        files: Every file of the artifact, ``path`` or what is in it first.
        format: Name of the exporter, such as ``"onnx"``.
        precision: Type of the weights in the file.
        signature: Inputs, outputs and the accepted range of every dynamic dimension.
        options: Options of the exporter.
        versions: Versions of the packages that took part.
        verified_on: Where the file was run for parity, or what was checked instead.
        parity: Figures against PyTorch; ``None`` where the file could not be run.
        audit: Types in which the file stores and computes, read back from it.
        quantization: How it was quantised; ``None`` if it was not.
        task: The task's metric before and after; ``None`` without an evaluation.
        details: Facts of the format, as JSON has them.
        notes: What a user of the file has to know.
        metadata: Text given by the user (preprocessing, labels, hash of the checkpoint), also embedded in the file.
    """

    path: Path
    files: tuple[FileRecord, ...]
    format: str
    precision: Precision
    signature: Signature
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    verified_on: str
    parity: ParityReport | None
    audit: PrecisionAudit | None = None
    quantization: QuantizationReport | None = None
    task: TaskReport | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the network takes."""
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the network returns."""
        return self.signature.outputs

    @property
    def size_bytes(self) -> int:
        """Size of all files together, without the manifest."""
        return sum(record.size_bytes for record in self.files)

    @property
    def sha256(self) -> str:
        """One SHA-256 for the whole artifact: the hash of the lines ``<sha256>  <name>`` of its files."""
        lines = "".join(f"{record.sha256}  {record.name}\n" for record in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def manifest_path(self) -> Path:
        """The manifest beside the file."""
        return manifest_path(self.path)

    def to_json(self) -> str:
        """The manifest's text; paths are relative to it, so the folder may move."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self), "path": self.path.name}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a manifest and check every file that it lists.

        Args:
            path: The exported file, or the manifest itself.

        Returns:
            The artifact as it was exported, its ``path`` in the manifest's present folder.

        Raises:
            ArtifactError: If the manifest is missing, is not one of ours or of another schema version, or if a file
                that it lists is missing or was changed.
        """
        manifest = manifest_path(Path(path))
        content = _load(manifest)
        try:
            artifact = cls(**_parse(content, manifest.parent))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"`path` must be a manifest written by exporters.export, got {manifest}.") from error
        for record in artifact.files:
            _check_file(manifest.parent / record.name, record)
        return artifact


def manifest_path(path: Path) -> Path:
    """Where the manifest of the exported file ``path`` lies; a manifest is its own.

    Example:
        >>> from pathlib import Path
        >>> from exporters.artifact import manifest_path
        >>> manifest_path(Path("student.xml")).name
        'student.xml.manifest.json'
    """
    return path if path.name.endswith(MANIFEST_SUFFIX) else path.with_name(path.name + MANIFEST_SUFFIX)


def record_files(folder: Path, names: tuple[str, ...]) -> tuple[FileRecord, ...]:
    """Size and hash of the files ``names`` in ``folder``; a name that is a folder stands for all files in it."""
    paths: list[Path] = []
    for name in names:
        path = folder / name
        paths += sorted(inner for inner in path.rglob("*") if inner.is_file()) if path.is_dir() else [path]
    return tuple(
        FileRecord(name=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load(manifest: Path) -> dict[str, Any]:
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"`path` must have a manifest beside it, got no {manifest}; export it again.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"`path` must be a readable JSON manifest, got {manifest}: {error}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactError(
            f"`schema_version` of {manifest} must be {SCHEMA_VERSION}, got {version!r}; "
            f"export the network again with this version."
        )
    return {key: value for key, value in content.items() if key != "schema_version"}


def _parse(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    signature, parity = content["signature"], content["parity"]
    audit, quantization = content["audit"], content["quantization"]
    return content | {
        "path": folder / content["path"],
        "files": tuple(FileRecord(**record) for record in content["files"]),
        "signature": Signature(
            inputs=tuple(TensorSpec.from_content(spec) for spec in signature["inputs"]),
            outputs=tuple(TensorSpec.from_content(spec) for spec in signature["outputs"]),
            dimensions={name: DimensionRange(*ends) for name, ends in signature["dimensions"].items()},
        ),
        "audit": audit and PrecisionAudit.from_content(audit),
        "quantization": quantization and QuantizationReport.from_content(quantization),
        "task": content["task"] and TaskReport(**content["task"]),
        "notes": tuple(content["notes"]),
        "parity": parity
        and ParityReport(
            outputs=tuple(OutputParity(**output) for output in parity["outputs"]),
            tolerance=Tolerance(**parity["tolerance"]),
            batch_sizes=tuple(parity["batch_sizes"]),
        ),
    }


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise ArtifactError(f"`{record.name}` must lie beside its manifest, got no {path}; copy it or export again.")
    if sha256_of(path) != record.sha256:
        raise ArtifactError(
            f"`{record.name}` must be as it was exported, got other content in {path} "
            f"(SHA-256 differs from the manifest's); export again."
        )

"""The schema of the metadata that every exported file carries, version 1."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, get_args

from exporters.errors import ArtifactError
from exporters.parity import OutputParity, Precision, Tolerance
from exporters.preprocessing import Preprocessing, preprocessing_from_content
from exporters.quantization.report import CalibrationRecord

SCHEMA = "lightning-kd/model-metadata"
SCHEMA_VERSION = 1
KEY = "model_metadata"
"""Name under which the JSON text lies in a file's own metadata."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDescription:
    """One input of the file.

    Args:
        name: Its name.
        shape: One entry per dimension: a size, or the name of a dynamic dimension.
        dtype: NumPy name of its type.
        layout: What the dimensions are, such as ``"NCHW"``; ``None`` if that was not said.
        unit: What a value is, such as ``"pixel value"``; ``None`` if that was not said.
        value_range: Smallest and largest value; ``None`` if that was not said.
    """

    name: str
    shape: tuple[int | str, ...] = ()
    dtype: str = ""
    layout: str | None = None
    unit: str | None = None
    value_range: tuple[float, float] | None = None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Read the JSON object of an input."""
        ends = content["value_range"]
        return cls(**{**content, "shape": tuple(content["shape"]), "value_range": ends and (ends[0], ends[1])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """What is known about a network. You give the first fields; an export fills in those from ``precision`` on.

    Args:
        name: Name of the network.
        task: What it does, such as ``"image-classification"``.
        labels: Names of the classes, in the order of the output.
        inputs: What is known of inputs; an export adds shapes, types and ranges, and the inputs that are missing.
        preprocessing: What has to happen before the network.
        preprocessing_in_graph: Whether the file does its part of that itself.
        teacher: The network that taught it.
        recipe: How it was taught.
        checkpoint_sha256: SHA-256 of the checkpoint it comes from, in hexadecimal.
        licences: SPDX identifiers of what went into it (weights, data, code), by what they cover.
        extra: Other text by name, which lies in the file's own metadata under these names, too.
        precision: Precision of the file.
        calibration: The inputs that set its ranges; ``None`` without.
        tolerance: Largest errors against PyTorch that it was allowed.
        parity: Errors that were measured; empty in the file itself, which was written before.
        versions: Versions of the packages that wrote it.

    Raises:
        ValueError: If a field is of another type, or a hash is none.

    Example:
        >>> metadata = ModelMetadata(name="student", labels=("cat", "dog"), licences={"weights": "Apache-2.0"})
        >>> ModelMetadata.from_text(metadata.to_text()) == metadata
        True
        >>> ModelMetadata(checkpoint_sha256="abc")
        Traceback (most recent call last):
        ValueError: `checkpoint_sha256` must be None or 64 hexadecimal digits, got 'abc'.
    """

    name: str = ""
    task: str | None = None
    labels: tuple[str, ...] = ()
    inputs: tuple[InputDescription, ...] = ()
    preprocessing: Preprocessing | None = None
    preprocessing_in_graph: bool = False
    teacher: str | None = None
    recipe: str | None = None
    checkpoint_sha256: str | None = None
    licences: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)
    precision: Precision | None = None
    calibration: CalibrationRecord | None = None
    tolerance: Tolerance | None = None
    parity: tuple[OutputParity, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types."""
        object.__setattr__(self, "labels", tuple(self.labels))
        for name, value in (
            ("name", self.name),
            *((f"labels[{index}]", text) for index, text in enumerate(self.labels)),
        ):
            _check_text(name, value)
        for name in ("task", "teacher", "recipe", "checkpoint_sha256"):
            _check_text(name, getattr(self, name) or "")
        for name in ("licences", "extra", "versions"):
            for entry in getattr(self, name).items():
                for text in entry:
                    _check_text(name, text)
        if self.checkpoint_sha256 is not None and not _SHA256.fullmatch(self.checkpoint_sha256):
            raise ValueError(
                f"`checkpoint_sha256` must be None or 64 hexadecimal digits, got {self.checkpoint_sha256!r}."
            )
        if self.precision not in (None, *get_args(Precision)):
            raise ValueError(f"`precision` must be None or one of {get_args(Precision)}, got {self.precision!r}.")
        if KEY in self.extra:
            raise ValueError(f"`extra` must not have the name {KEY!r}, which holds the schema, got it.")

    def to_text(self) -> str:
        """The JSON text, the same for the same metadata."""
        content = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "preprocessing": self.preprocessing and self.preprocessing.to_content(),
        }
        return json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False)

    def texts(self) -> dict[str, str]:
        """What lies in the file's own metadata: the JSON text, and ``extra`` name by name."""
        return {**self.extra, KEY: self.to_text()}

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read the JSON text.

        Raises:
            ArtifactError: If it is not of this schema and version, lacks a field, has another one, or one of a wrong
                type.
        """
        try:
            content = json.loads(text)
            found = content.pop("schema"), content.pop("schema_version")
            if found != (SCHEMA, SCHEMA_VERSION):
                raise ValueError(f"schema and version must be {SCHEMA!r} and {SCHEMA_VERSION}, got {found}")
            missing = set(cls.__dataclass_fields__) - content.keys()
            if missing:
                raise ValueError(f"the fields {sorted(missing)} must be there")
            return cls(**_parsed(content))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactError(f"metadata must be text that exporters.export wrote, but {error}.") from error


def metadata_from(given: Mapping[str, str] | ModelMetadata | None) -> ModelMetadata:
    """Metadata as the user may give it: nothing, text by name, or all of it.

    Raises:
        ValueError: If text by name is not that.

    Example:
        >>> metadata_from({"author": "me"}).extra
        {'author': 'me'}
    """
    return given if isinstance(given, ModelMetadata) else ModelMetadata(extra=dict(given or {}))


def with_inputs(metadata: ModelMetadata, inputs: tuple[InputDescription, ...]) -> ModelMetadata:
    """The metadata with the inputs of a file, of which what the user said about them is kept.

    Raises:
        ValueError: If the user described an input that the network does not have.
    """
    said = {description.name: description for description in metadata.inputs}
    unknown = said.keys() - {description.name for description in inputs}
    if unknown:
        names = [description.name for description in inputs]
        raise ValueError(f"`inputs` of the metadata must be among {names}, got {sorted(unknown)}.")
    return replace(metadata, inputs=tuple(_joined(each, said.get(each.name)) for each in inputs))


def _joined(found: InputDescription, said: InputDescription | None) -> InputDescription:
    if said is None:
        return found
    return replace(
        found,
        layout=said.layout or found.layout,
        unit=said.unit or found.unit,
        value_range=said.value_range or found.value_range,
    )


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` must be text, got {value!r}; turn values into text with json.dumps.")


def _parsed(content: Mapping[str, Any]) -> dict[str, Any]:
    preprocessing, calibration, tolerance = (content[name] for name in ("preprocessing", "calibration", "tolerance"))
    return {
        **content,
        "labels": tuple(content["labels"]),
        "inputs": tuple(InputDescription.from_content(each) for each in content["inputs"]),
        "preprocessing": None if preprocessing is None else preprocessing_from_content(preprocessing),
        "calibration": None if calibration is None else CalibrationRecord(**calibration),
        "tolerance": None if tolerance is None else Tolerance(**tolerance),
        "parity": tuple(OutputParity(**output) for output in content["parity"]),
    }

"""Metadata out of a file, whatever its format."""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from exporters.artifact import Artifact, manifest_path
from exporters.errors import ArtifactError, MissingRuntimeError
from exporters.metadata.schema import KEY, ModelMetadata
from exporters.quiet import errors_only, no_telemetry


def read_metadata(path: Path | str) -> ModelMetadata:
    """What a file that `exporters.export` wrote says about its network.

    Files of the formats listed in ``docs/preprocessing.md`` carry it themselves, so that the manifest may be missing;
    then ``parity`` is empty, because a file is written before it is compared. Others are read from their manifest.

    Args:
        path: The exported file.

    Returns:
        The metadata.

    Raises:
        ArtifactError: If the file cannot be read, carries none, or it is not of this schema.
        MissingRuntimeError: If the package that reads this format is not installed.

    Example:
        >>> import tempfile, exporters, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/relu.onnx"
        ...     given = exporters.ModelMetadata(name="relu", licences={"code": "Apache-2.0"})
        ...     _ = exporters.export(torch.nn.ReLU(), torch.randn(1, 2), to="onnx", path=path, metadata=given)
        ...     found = read_metadata(path)
        >>> found.name, found.licences, found.inputs[0].shape
        ('relu', {'code': 'Apache-2.0'}, (1, 2))
    """
    path = Path(path)
    artifact = Artifact.read(path) if manifest_path(path).exists() else None
    if path.suffix in _READERS:
        text = _embedded(path, _READERS[path.suffix])
    elif artifact is not None:
        text = artifact.metadata.get(KEY)
    else:
        formats = ", ".join(_READERS)
        raise ArtifactError(f"`path` must end in {formats}, or have a manifest beside it, got {path} without.")
    if text is None:
        raise ArtifactError(f"`path` must be a file with metadata, got {path} without; export it again.")
    metadata = ModelMetadata.from_text(text)
    return replace(metadata, parity=artifact.parity.outputs) if artifact and artifact.parity else metadata


def _embedded(path: Path, reader: Callable[[Path], Mapping[str, str]]) -> str | None:
    if not path.exists():
        raise ArtifactError(f"`path` must be a file that exists, got {path}.")
    try:
        return reader(path).get(KEY)
    except ImportError as error:
        raise MissingRuntimeError(f"a package must be installed to read {path.name}, but {error}.") from error


def _onnx(path: Path) -> Mapping[str, str]:
    onnx = importlib.import_module("onnx")
    try:
        model = onnx.load(path, load_external_data=False)
    except importlib.import_module("google.protobuf.message").DecodeError as error:
        raise ArtifactError(f"`path` must be an ONNX file, got {path}: {error}") from error
    return {entry.key: entry.value for entry in model.metadata_props}


def _openvino(path: Path) -> Mapping[str, str]:
    with no_telemetry():
        openvino = importlib.import_module("openvino")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ArtifactError(f"`path` must be an OpenVINO file, got {path}: {error}") from error
    place = ["exporters", KEY]
    return {KEY: model.get_rt_info(place).astype(str)} if model.has_rt_info(place) else {}


def _core_ml(path: Path) -> Mapping[str, str]:
    with errors_only("coremltools"):
        utilities = importlib.import_module("coremltools.models.utils")
        return dict(utilities.load_spec(str(path)).description.metadata.userDefined)


def _core_ai(path: Path) -> Mapping[str, str]:
    try:
        return dict(json.loads((path / "metadata.json").read_text(encoding="utf-8")).get("creatorDefinedMetadata", {}))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"`path` must be a Core AI asset, got {path}: {error}") from error


def _executorch(path: Path) -> Mapping[str, str]:
    runtime = importlib.import_module("executorch.runtime")
    try:
        program = runtime.Runtime.get().load_program(path)
        if "exporters_metadata" not in program.method_names:
            return {}
        return dict(json.loads(program.load_method("exporters_metadata").execute([])[0]))
    except RuntimeError as error:
        raise ArtifactError(f"`path` must be an ExecuTorch file, got {path}: {error}") from error


_READERS: Mapping[str, Callable[[Path], Mapping[str, str]]] = {
    ".onnx": _onnx,
    ".xml": _openvino,
    ".mlpackage": _core_ml,
    ".aimodel": _core_ai,
    ".pte": _executorch,
}

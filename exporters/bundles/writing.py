"""Writes a bundle: one capture, several runtimes, everything checked, all of it or nothing."""

import importlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.api import batch_range, find_exporter
from exporters.artifact import Artifact, sha256_of
from exporters.bundles.card import ModelCard, markdown
from exporters.bundles.reading import INDEX, SCHEMA_VERSION, SUMS, Bundle, read_folder
from exporters.errors import InputError, PathError
from exporters.metadata.schema import ModelMetadata, metadata_from
from exporters.parity import Precision
from exporters.preprocessing import Preprocessing
from exporters.quantization.options import QuantizationOptions
from exporters.spec import ExportSpec
from exporters.staging import staged
from exporters.task import Metric

if TYPE_CHECKING:
    from torch import nn

    from exporters.example import ExampleInputs
    from exporters.exporter import Exporter

FOLDER, ARCHIVE = ".bundle", ".zip"
CARD, RUNNER = "README.md", "run.py"


def bundle(
    model: "nn.Module",
    example_inputs: "ExampleInputs | ExportSpec",
    *,
    to: "Sequence[str | Exporter | tuple[str | Exporter, Precision]]",
    path: Path | str,
    dynamic_batch: bool | tuple[int, int] = False,
    calibration: Any = None,
    quantization: QuantizationOptions | None = None,
    evaluation: Any = None,
    metric: Metric = "top1",
    max_drop: float | None = None,
    card: ModelCard | None = None,
    preprocessing: Preprocessing | None = None,
    metadata: Mapping[str, str] | ModelMetadata | None = None,
) -> Bundle:
    """Export a network to several runtimes and precisions, into one folder or archive.

    It holds the files with their manifests, ``bundle.json``, ``SHA256SUMS``, a model card (``README.md``), and
    ``run.py``, which runs any of the files with Python, NumPy and the runtime alone. The network is captured once. If
    one export fails, nothing is written.

    Args:
        model: The network.
        example_inputs: As for `exporters.export`.
        to: What to export to: formats or exporters, for another precision than fp32 in pairs with it, as in
            ``["onnx", ("openvino", "int8")]``.
        path: Folder ending in ``.bundle`` or archive ending in ``.zip``, in an existing folder; an earlier one is
            replaced.
        dynamic_batch: As for `exporters.export`.
        calibration: As for `exporters.export`; used by the int8 exports.
        quantization: As for `exporters.export`.
        evaluation: As for `exporters.export`; every file is evaluated.
        metric: As for `exporters.export`.
        max_drop: As for `exporters.export`.
        card: What the model card says beside what is measured.
        preprocessing: As for `exporters.export`.
        metadata: As for `exporters.export`.

    Returns:
        The bundle; that of an archive has no files on disk yet, see `exporters.open_bundle`.

    Raises:
        ExportError: As `exporters.export` does, for the first file that fails.
        PathError: If ``path`` has another suffix.
        ValueError: If ``to`` is empty or names one format and precision twice.

    Example:
        >>> import tempfile, exporters, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = exporters.bundle(
        ...         torch.nn.Linear(3, 2), torch.randn(1, 3), to=["onnx", "openvino"], path=f"{folder}/student.bundle"
        ...     )
        >>> sorted(made.artifacts)
        ['onnx-fp32', 'openvino-fp32']
    """
    path = Path(path)
    if path.suffix not in (FOLDER, ARCHIVE):
        raise PathError(f"`path` must end in {FOLDER!r} or {ARCHIVE!r}, got {path.name!r}.")
    wanted = _wanted(to)
    if calibration is not None and "int8" not in (precision for _, precision in wanted.values()):
        raise InputError("`calibration` must be left out unless `to` has int8, got it without.")
    pipeline = importlib.import_module("exporters.pipeline")
    for name, (exporter, precision) in wanted.items():
        pipeline.check_target(exporter, Path(name + exporter.suffix), precision)
    if preprocessing is not None:
        model = importlib.import_module("exporters.preprocessing.modules").with_preprocessing(model, preprocessing)
    network = importlib.import_module("exporters.network").prepare(
        model, example_inputs, batch=batch_range(dynamic_batch)
    )
    importlib.import_module("exporters.capture").capture(network)
    with staged(path.parent, last=path.name) as stage:
        folder = stage / path.stem if path.suffix == ARCHIVE else stage / path.name
        folder.mkdir()
        artifacts: list[tuple[str, Artifact]] = []
        for name, (exporter, precision) in wanted.items():
            (folder / name).mkdir()
            file = folder / name / f"model{exporter.suffix}"
            order = pipeline.Order(
                precision=precision,
                calibration=calibration if precision == "int8" else None,
                quantization=quantization or QuantizationOptions(),
                evaluation=evaluation,
                metric=metric,
                max_drop=max_drop,
                metadata=metadata_from(metadata),
                preprocessing=preprocessing,
            )
            artifacts.append((f"{name}/{file.name}", pipeline.export_network(network, exporter, file, order)))
        _complete(folder, artifacts, card or ModelCard())
        made = read_folder(folder)
        if path.suffix == ARCHIVE:
            _pack(folder, stage / path.name)
            shutil.rmtree(folder)
    return made.at(path)


def _wanted(to: Sequence[Any]) -> "dict[str, tuple[Exporter, Precision]]":
    wanted: dict[str, tuple[Exporter, Precision]] = {}
    for target in to:
        what, precision = target if isinstance(target, tuple) else (target, "fp32")
        exporter = find_exporter(what)
        name = f"{exporter.format}-{precision}"
        if name in wanted:
            raise ValueError(f"`to` must name every format and precision once, got {name} twice.")
        wanted[name] = exporter, precision
    if not wanted:
        raise ValueError("`to` must name at least one format, got none.")
    return wanted


def _complete(folder: Path, artifacts: Sequence[tuple[str, Artifact]], card: ModelCard) -> None:
    index = {
        "schema_version": SCHEMA_VERSION,
        "card": asdict(card),
        "artifacts": {
            path.partition("/")[0]: {
                "path": path,
                "format": artifact.format,
                "precision": artifact.precision,
                "size_bytes": artifact.size_bytes,
                "sha256": artifact.sha256,
            }
            for path, artifact in artifacts
        },
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(markdown(card, artifacts), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("runner.py"), folder / RUNNER)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sums = "".join(f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _pack(folder: Path, archive: Path) -> None:
    """Write an archive whose bytes depend on the files alone."""
    with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, file.read_bytes())

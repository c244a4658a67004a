"""The steps of every export, in their order."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from exporters.artifact import Artifact, manifest_path, record_files
from exporters.errors import PathError
from exporters.exporter import Exporter
from exporters.network import ExampleInputs, prepare
from exporters.parity import Precision
from exporters.signature import DimensionRange
from exporters.staging import staged


def export_network(
    model: nn.Module,
    example_inputs: ExampleInputs,
    exporter: Exporter,
    path: Path,
    *,
    precision: Precision,
    batch: DimensionRange | None,
    metadata: Mapping[str, str],
) -> Artifact:
    """Convert, check and publish one network; `exporters.export` says what the arguments mean."""
    if path.suffix != exporter.suffix:
        raise PathError(
            f"`path` must end in {exporter.suffix!r} for {exporter.format}, got {path.name!r}; "
            f"write {path.with_suffix(exporter.suffix).name!r}."
        )
    manifest = manifest_path(path)
    with staged(path.parent, last=manifest.name) as folder:
        network = prepare(model, example_inputs, batch=batch)
        target = folder / path.name
        exporter.convert(network, target, precision=precision, metadata=metadata)
        names = tuple(sorted((file.name for file in folder.iterdir()), key=lambda name: (name != path.name, name)))
        artifact = Artifact(
            path=target,
            files=record_files(folder, names),
            format=exporter.format,
            precision=precision,
            signature=network.signature,
            options=asdict(exporter),
            versions=exporter.versions,
            verified_on="nothing yet",
            parity=None,
            metadata=metadata,
        )
        artifact = exporter.verify(artifact, network)
        (folder / manifest.name).write_text(artifact.to_json(), encoding="utf-8")
    return replace(artifact, path=path)

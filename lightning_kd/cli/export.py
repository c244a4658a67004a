"""``lightning-kd export``: a network by name, written for one runtime or several."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal
from rich.table import Table
from torch import nn

import exporters
from exporters.artifact import Artifact
from exporters.errors import PathError
from exporters.parity import TOLERANCES
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd.cli._console import show, working
from lightning_kd.cli._parsing import MODEL, CommandParser, add_input_options, add_json_option
from lightning_kd.errors import SetupError
from lightning_kd.models import load_model, parse_spec


def run(command: str, arguments: Sequence[str]) -> None:
    """Export a network and print what was written, and how far it is from PyTorch."""
    options = _parser(command).parse_args(arguments)
    formats = {name: import_runtime(EXPORTERS, name)() for name in options.to}
    with working() as progress:
        torch.manual_seed(options.seed)
        model = load_model(
            options.model, pretrained=options.pretrained, checkpoint=options.checkpoint, prefix=options.prefix
        )
        example = torch.randn(input_shape(model, options.input_shape))
        folder = _make_folder(Path(options.output))
        stem = f"{options.name or parse_spec(options.model)[1]}-{options.precision}"
        artifacts = [
            exporters.export(
                model,
                example,
                to=exporter,
                path=folder / f"{stem}{exporter.suffix}",
                precision=options.precision,
                dynamic_batch=options.dynamic_batch,
                metadata={"model": options.model},
            )
            for exporter in progress.track(list(formats.values()), description="exporting")
        ]
    document = {"artifacts": [artifact_document(artifact) for artifact in artifacts]}
    show(document, [_table(artifacts)], as_json=options.json)


def input_shape(model: nn.Module, given: Sequence[int] | None) -> tuple[int, ...]:
    """Shape of the network's input: as given, or the one that timm publishes for it with a batch of one."""
    if given is not None:
        return tuple(given)
    published = getattr(model, "default_cfg", {}).get("input_size")
    if published is None:
        raise SetupError(
            f"`--input-shape` must be given for {type(model).__name__}, which publishes none, got none: "
            "for example --input-shape 1 3 224 224."
        )
    return (1, *published)


def artifact_document(artifact: Artifact) -> dict[str, Any]:
    """The manifest, with the path as the user wrote it and the sums of the files."""
    manifest: dict[str, Any] = json.loads(artifact.to_json())
    return {**manifest, "path": str(artifact.path), "size_bytes": artifact.size_bytes, "sha256": artifact.sha256}


def _parser(command: str) -> CommandParser:
    parser = CommandParser(command, "Write a network for one runtime or several, each file checked against PyTorch.")
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("--to", nargs="+", choices=list(EXPORTERS), required=True, help="runtimes to write for")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the files; made if there is none")
    parser.add_argument("--name", help="file name without suffix; the network's name if not given")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights (.ckpt, .pt, .safetensors); random if not given")
    parser.add_argument("--prefix", help="what precedes the network's names in the checkpoint; found if not given")
    parser.add_argument("--pretrained", action="store_true", help="download the published weights")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32", help="type of weights (%(default)s)")
    parser.add_argument("--dynamic-batch", action="store_true", help="accept batches of 1 to 32 samples")
    add_input_options(parser)
    add_json_option(parser)
    return parser


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathError(f"`--output` must be a folder that can be written, got {folder}: {error.strerror}.") from error
    return folder


def _table(artifacts: Sequence[Artifact]) -> Table:
    table = Table(title="Exported")
    for heading in ("file", "precision", "verified on"):
        table.add_column(heading)
    for heading in ("size", "max error / range", "relative L2", "argmax agreement"):
        table.add_column(heading, justify="right")
    for artifact in artifacts:
        size = decimal(artifact.size_bytes)
        table.add_row(str(artifact.path), artifact.precision, artifact.verified_on, size, *_figures(artifact))
    return table


def _figures(artifact: Artifact) -> tuple[str, str, str]:
    if artifact.parity is None:
        return ("not run", "not run", "not run")
    outputs = artifact.parity.outputs
    return (
        f"{max(output.max_abs_of_range for output in outputs):.2g}",
        f"{max(output.relative_l2 for output in outputs):.2g}",
        f"{min(output.argmax_agreement for output in outputs):.1%}",
    )

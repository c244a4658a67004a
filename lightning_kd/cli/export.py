"""``lightning-kd export``: a network by name, written for one runtime or several."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

import exporters
from exporters.errors import PathError
from exporters.parity import TOLERANCES
from exporters.preprocessing import ImagePreprocessing, from_timm, from_torchvision
from exporters.quantization import QuantizationOptions
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd.cli._console import show, working
from lightning_kd.cli._inputs import Files, dimension, example_inputs, published_shape, size_or_name
from lightning_kd.cli._parsing import MODEL, CommandParser, add_json_option, positive
from lightning_kd.cli._tables import artifact_document, artifact_table, remarks
from lightning_kd.errors import SetupError
from lightning_kd.models import load_model, parse_spec


def run(command: str, arguments: Sequence[str]) -> None:
    """Export a network and print what was written, how far it is from PyTorch, and in which precision it computes."""
    parser = _parser(command, _formats(arguments))
    options = parser.instantiate(parser.parse_args(arguments))
    if (options.output is None) == (options.bundle is None):
        parser.error("exactly one of --output and --bundle is required")
    targets = {name: getattr(options, name) for name in options.to}
    with working() as progress:
        torch.manual_seed(options.seed)
        model = load_model(
            options.model, pretrained=options.pretrained, checkpoint=options.checkpoint, prefix=options.prefix
        )
        example, settings = _settings(model, options)
        if options.bundle is not None:
            progress.add_task("exporting", total=None)
            artifacts = _bundle(model, example, options, targets, settings)
        else:
            folder = _make_folder(Path(options.output))
            stem = f"{options.name or parse_spec(options.model)[1]}-{options.precision}"
            artifacts = [
                exporters.export(
                    model,
                    example,
                    to=exporter,
                    path=folder / f"{stem}{exporter.suffix}",
                    precision=options.precision,
                    **settings,
                )
                for exporter in progress.track(list(targets.values()), description="exporting")
            ]
    document = {"artifacts": [artifact_document(artifact) for artifact in artifacts]}
    show(document, [artifact_table(artifacts), *remarks(artifacts)], as_json=options.json)


def _settings(model: nn.Module, options: Any) -> tuple[Any, dict[str, Any]]:
    """The example, and what `exporters.export` and `exporters.bundle` are told alike."""
    shape = published_shape(model, options.input_shape)
    preprocessing = _preprocessing(model, options)
    files = Files(model, shape, preprocessing)
    settings: dict[str, Any] = {
        "dynamic_batch": options.dynamic_batch,
        "quantization": options.quantization,
        "max_drop": options.max_drop,
        "preprocessing": preprocessing,
        "metadata": {"model": options.model},
    }
    if options.calibration is not None:
        settings["calibration"] = files.samples(options.calibration, count=options.quantization.samples)
    if options.evaluation is not None:
        settings["evaluation"] = files.labelled(options.evaluation, count=options.evaluation_samples)
    return example_inputs(model, shape, dict(options.dynamic or ()), preprocessing), settings


def _preprocessing(model: nn.Module, options: Any) -> ImagePreprocessing | None:
    try:
        if options.preprocessing == "timm":
            return from_timm(model)
        if options.preprocessing == "torchvision":
            weights = torchvision.models.get_model_weights(parse_spec(options.model)[1]).DEFAULT
            return from_torchvision(weights.transforms())
    except ValueError as error:
        raise SetupError(f"`--preprocessing {options.preprocessing}` does not fit {options.model}: {error}") from error
    return None


def _bundle(
    model: nn.Module, example: Any, options: Any, targets: dict[str, Any], settings: dict[str, Any]
) -> list[exporters.Artifact]:
    card = exporters.ModelCard(name=options.name or parse_spec(options.model)[1])
    made = exporters.bundle(
        model,
        example,
        to=[(exporter, options.precision) for exporter in targets.values()],
        path=options.bundle,
        card=card,
        **settings,
    )
    return list(made.artifacts.values())


def _formats(arguments: Sequence[str]) -> tuple[str, ...]:
    """Formats that ``--to`` names: only their options exist, because each lies in the module of its runtime."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--to", nargs="*", default=[])
    return tuple(name for name in dict.fromkeys(parser.parse_known_args(arguments)[0].to) if name in EXPORTERS)


def _parser(command: str, formats: Sequence[str]) -> CommandParser:
    parser = CommandParser(
        command,
        "Write a network for one runtime or several, each file checked against PyTorch. Every runtime has options of "
        "its own, listed when it is given: lightning-kd export --to executorch --help",
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL)
    parser.add_argument("--to", nargs="+", choices=list(EXPORTERS), required=True, help="runtimes to write for")
    parser.add_argument("--output", metavar="DIR", help="folder of the files; made if there is none")
    parser.add_argument(
        "--bundle", metavar="FILE", help="one folder (.bundle) or archive (.zip) with all files instead"
    )
    parser.add_argument("--name", help="file name without suffix; the network's name if not given")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights (.ckpt, .pt, .safetensors); random if not given")
    parser.add_argument("--prefix", help="what precedes the network's names in the checkpoint; found if not given")
    parser.add_argument("--pretrained", action="store_true", help="download the published weights")
    parser.add_argument("--precision", choices=list(TOLERANCES), default="fp32", help="type of weights (%(default)s)")
    parser.add_argument("--dynamic-batch", action="store_true", help="accept batches of 1 to 32 samples")
    shape = "as in 1 3 224 224, names for dynamic sizes; the one that timm publishes if not given"
    parser.add_argument("--input-shape", nargs="+", type=size_or_name, metavar="N", help=shape)
    ranges = "range of a name in --input-shape, as in batch=1:8, time=8000:16000:160000 or size=64:256*32"
    parser.add_argument("--dynamic", nargs="+", type=dimension, metavar="NAME=MIN:OPT:MAX", help=ranges)
    real = "real inputs for int8: a folder of images, or an .npz file with an array per input"
    parser.add_argument("--calibration", metavar="PATH", help=real)
    labelled = "reports the loss of accuracy: a folder with a subfolder of images per class, or .npz with `labels`"
    parser.add_argument("--evaluation", metavar="PATH", help=labelled)
    most = "most samples to evaluate on (%(default)s)"
    parser.add_argument("--evaluation-samples", type=positive, default=1000, metavar="N", help=most)
    parser.add_argument("--max-drop", type=float, help="largest loss of accuracy, as a fraction; more is an error")
    graph = "puts the normalisation that timm or torchvision publish into the file, which then takes uint8 images"
    parser.add_argument("--preprocessing", choices=["timm", "torchvision", "none"], default="none", help=graph)
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights and inputs (%(default)s)")
    add_json_option(parser)
    parser.add_class_arguments(QuantizationOptions, "quantization")
    for name in formats:
        parser.add_class_arguments(type(import_runtime(EXPORTERS, name)()), name)
    return parser


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PathError(f"`--output` must be a folder that can be written, got {folder}: {error.strerror}.") from error
    return folder

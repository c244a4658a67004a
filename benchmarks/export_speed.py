"""How fast exports are: against the plain converter, between precisions, and against PyTorch.

Every ratio comes from `exporters.profiling.compare`: both networks in interleaved random blocks, each loaded afresh in
five sittings, ONNX Runtime without spinning threads, one process per comparison. Below 1 the named one is faster:

- ``ours_to_plain``: our fp32 file over what `openvino.convert_model` or `torch.onnx.export` makes of the same network;
- ``int8_to_fp32``: our int8 file over our fp32 file;
- ``int8_to_default``: our int8 file over our fp32 file at the precision that the runtime chooses by itself, which is
  bfloat16 for OpenVINO on processors that have it, and float32 for ONNX Runtime;
- ``int8_to_eager``: our int8 file over eager PyTorch, float32.

    .venv/bin/python benchmarks/export_speed.py                     # results/export_speed.json
    .venv/bin/python benchmarks/export_speed.py --quick --json      # one small network, both runtimes
"""

import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openvino
import timm
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions
from torch import nn

import exporters
from exporters.artifact import Artifact
from exporters.profiling import ProfileOptions, compare

MODELS = ("resnet18", "mobilenetv3_small_100", "efficientnet_b0", "vit_tiny_patch16_224")
RUNTIMES = {"onnx": ".onnx", "openvino": ".xml"}
RATIOS = ("ours_to_plain", "int8_to_fp32", "int8_to_default", "int8_to_eager")
TIMEOUT_S = 1200
QUICK = ProfileOptions(min_runs=60, min_seconds=0.1, min_warm_up_seconds=0.02, max_warm_up_seconds=1.0)


def main() -> None:
    parser = options(__doc__, "--fast")
    parser.add_argument("--models", nargs="+", default=None, help=f"timm names (default: {' '.join(MODELS)})")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "RUNTIME", "RATIO"), help="one comparison, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(measure(*arguments.one, quick=arguments.fast)) + "\n")
        return
    rows = [
        row
        for model in arguments.models or (MODELS[1:2] if arguments.fast else MODELS)
        for runtime in arguments.runtimes
        for row in (in_process(model, runtime, ratio, arguments) for ratio in RATIOS)
    ]
    report(rows, arguments)


def in_process(model: str, runtime: str, ratio: str, arguments: Namespace) -> dict[str, Any]:
    """One comparison in a process of its own; what goes wrong there is the row's text."""
    command = [sys.executable, __file__, "--one", model, runtime, ratio, *(["--fast"] if arguments.fast else [])]
    row = {"model": model, "runtime": runtime, "ratio": ratio}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {**row, "why_not": f"not finished in {TIMEOUT_S} s"}
    if done.returncode:
        return {**row, "why_not": done.stderr.strip().splitlines()[-1]}
    return {**row, **json.loads(done.stdout.splitlines()[-1])}


def measure(model: str, runtime: str, ratio: str, *, quick: bool) -> dict[str, Any]:
    """Export what a ratio needs and compare it."""
    net, image, data = network(model, side=64 if quick else 128)
    how = QUICK if quick else ProfileOptions(min_runs=200, min_seconds=4.0)
    with tempfile.TemporaryDirectory() as folder:
        files = {
            precision: export(net, image, data, runtime, Path(folder, precision), precision)
            for precision in ({"ours_to_plain": ("fp32",)}.get(ratio, ("fp32", "int8")))
        }
        ours = files["fp32" if ratio == "ours_to_plain" else "int8"]
        if ratio == "ours_to_plain":
            first: Any = plain(net, image, runtime, Path(folder, "plain"), ours)
        elif ratio == "int8_to_fp32":
            first = files["fp32"]
        elif ratio == "int8_to_default":
            first = exporters.load(files["fp32"], threads=1, precision="default")
        else:
            first = exporters.pytorch_session(net, image, threads=1)
        session = isinstance(first, Artifact)
        second: Any = ours if session else exporters.load(ours, threads=1)
        found = compare(first, second, threads=1 if session else None, options=how)
    figures = found.summary()
    return {
        "value": figures["ratio"]["value"],
        "interval": [figures["ratio"]["low"], figures["ratio"]["high"]],
        "noise_floor": figures["noise_floor"],
        "verdict": figures["verdict"],
        "first_p50_ms": figures["first_p50_ms"]["value"],
        "second_p50_ms": figures["second_p50_ms"]["value"],
        "first_precision": found.first.properties["active_precision"],
        "recipe": ours.quantization.recipe if ours.quantization else None,
        "cosine": ours.parity.outputs[0].cosine if ours.parity else None,
    }


def network(model: str, *, side: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network of random weights and statistics, and smooth random images."""
    torch.manual_seed(0)
    size = {"img_size": side} if "vit" in model else {}
    net = timm.create_model(model, num_classes=100, **size).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.running_mean, -0.2, 0.2)):
                tensor.data.uniform_(low, high)
    coarse = torch.randn(60, 3, side // 8, side // 8)
    data = nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear")
    return net, data[:1], data


def export(
    net: nn.Module, image: torch.Tensor, data: torch.Tensor, runtime: str, folder: Path, precision: str
) -> Artifact:
    folder.mkdir()
    more: dict[str, Any] = {}
    if precision == "int8":
        # Speed is measured here; what int8 does to accuracy is measured on trained networks elsewhere.
        more = {"calibration": data, "tolerance": exporters.Tolerance(cosine=0.5)}
    return exporters.export(net, image, to=runtime, path=folder / f"n{RUNTIMES[runtime]}", precision=precision, **more)


def plain(net: nn.Module, image: torch.Tensor, runtime: str, folder: Path, ours: Artifact) -> Artifact:
    """What the converter makes without us, under the manifest that lets our sessions open it."""
    folder.mkdir()
    path = folder / ours.path.name
    program = torch.export.export(net, (image,))
    names = [spec.name for spec in ours.inputs], [spec.name for spec in ours.outputs]
    if runtime == "onnx":
        torch.onnx.export(program, f=str(path), dynamo=True, input_names=names[0], output_names=names[1], verbose=False)
    else:
        model = openvino.convert_model(program, input=[list(image.shape)])
        for ports, tensor_names in zip((model.inputs, model.outputs), names, strict=True):
            for port, name in zip(ports, tensor_names, strict=True):
                port.get_tensor().set_names({name})
        openvino.save_model(model, path, compress_to_fp16=False)
    files = exporters.artifact.record_files(folder, tuple(sorted(file.name for file in folder.iterdir())))
    artifact = replace(ours, path=path, files=files)
    artifact.manifest_path.write_text(artifact.to_json(), encoding="utf-8")
    return artifact


def report(rows: list[dict[str, Any]], arguments: Namespace) -> None:
    content = {
        "ratios": {f"{row['model']}/{row['runtime']}/{row['ratio']}": row.get("value") for row in rows},
        "rows": rows,
        "machine": machine(),
        "versions": versions() | {name: version(name) for name in ("nncf", "onnxruntime", "openvino")},
    }
    print_table(
        "Median latency, second over first",
        ("model", "runtime", "ratio", "value", "95 % interval", "noise floor", "verdict"),
        [
            (
                row["model"],
                row["runtime"],
                row["ratio"],
                *(
                    (f"{row['value']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]), f"{row['noise_floor']:.3f}")
                    if "value" in row
                    else ("", "", "")
                ),
                row.get("verdict") or row["why_not"][:40],
            )
            for row in rows
        ],
    )
    deliver(content, arguments, default=None if arguments.fast else RESULTS / "export_speed.json")


if __name__ == "__main__":
    main()

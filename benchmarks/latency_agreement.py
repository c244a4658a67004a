"""Whether our median latency is the one that the runtime's own tool reports: same file, same threads, interleaved.

Ours is `exporters.profiling.profile`. The other is OpenVINO's ``benchmark_app`` (synchronous, one stream), or for ONNX
Runtime a bare loop over ``InferenceSession.run``. Each measurement has a process of its own; in every repetition the
two follow one another in random order. A ratio is ours over the other: above 1 we report more.

    .venv/bin/python benchmarks/latency_agreement.py                     # results/latency_agreement.json
    .venv/bin/python benchmarks/latency_agreement.py --quick --json      # one network, two repetitions
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions

import exporters
from exporters.artifact import Artifact
from exporters.profiling import ProfileOptions, profile

MODELS = ("resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
REPETITIONS = 5
SEED = 0


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement, s (%(default)s)")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FILE"), help="one measurement, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        way, file = arguments.one
        sys.stdout.write(json.dumps(WAYS[way](Path(file), arguments.seconds)) + "\n")
        return
    report(measure_all(arguments), arguments)


def measure_all(arguments: Namespace) -> list[dict[str, Any]]:
    """A row for every network and runtime."""
    order = np.random.default_rng(SEED)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS[1:2] if arguments.quick else MODELS:
            for runtime in SUFFIXES:
                file = export(model, runtime, Path(folder))
                rows.append(compare_ways(model, runtime, file, order=order, arguments=arguments))
    return rows


def export(model: str, runtime: str, folder: Path) -> Path:
    """Write a network of random weights, for images of 224 pixels."""
    torch.manual_seed(SEED)
    path = folder / f"{model}{SUFFIXES[runtime]}"
    image = torch.randn(1, 3, 224, 224)
    return exporters.export(timm.create_model(model).eval(), image, to=runtime, path=path).path


def compare_ways(
    model: str, runtime: str, file: Path, *, order: np.random.Generator, arguments: Namespace
) -> dict[str, Any]:
    """Median latencies by both ways, ms, in each repetition."""
    other = {"onnx": "loop", "openvino": "benchmark_app"}[runtime]
    found: dict[str, list[float]] = {"ours": [], other: []}
    for _ in range(2 if arguments.quick else REPETITIONS):
        for way in order.permutation(list(found)).tolist():
            found[way].append(in_process(way, file, arguments.seconds))
    ratios = [ours / theirs for ours, theirs in zip(found["ours"], found[other], strict=True)]
    return {
        "model": model,
        "runtime": runtime,
        "other": other,
        "ours_p50_ms": found["ours"],
        "other_p50_ms": found[other],
        "ratios": ratios,
        "ratio": median(ratios),
    }


def in_process(way: str, file: Path, seconds: float) -> float:
    """Median latency by one way, ms, measured in a fresh process."""
    command = [sys.executable, __file__, "--seconds", str(seconds), "--one", way, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def ours(file: Path, seconds: float) -> float:
    """Median latency by our protocol, ms."""
    how = ProfileOptions(min_runs=50, min_seconds=seconds, max_seconds=10 * seconds)
    estimate = profile(file, threads=1, seed=SEED, options=how).p50_ms
    if estimate is None:
        raise SystemExit("too few runs for a median")
    return estimate.value


def benchmark_app(file: Path, seconds: float) -> float:
    """Median latency that OpenVINO's tool reports, ms."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(file), "-d", "CPU", "-api", "sync"]
        command += ["-hint", "none", "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32"]
        command += ["-t", str(round(seconds)), "-report_type", "no_counters", "-json_stats", "-report_folder", folder]
        subprocess.run(command, capture_output=True, text=True, check=True)
        (found,) = Path(folder).glob("*.json")
        results = json.loads(found.read_text(encoding="utf-8"))["execution_results"]
    return float(results["latency (ms)"])


def loop(file: Path, seconds: float) -> float:
    """Median latency of a bare loop over ONNX Runtime, ms."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    (spec,) = Artifact.read(file).inputs
    inputs = {spec.name: torch.randn(spec.at({}), generator=torch.Generator().manual_seed(SEED)).numpy()}
    warm_until = time.perf_counter() + 1.0
    while time.perf_counter() < warm_until:
        session.run(None, inputs)
    latencies_ms = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        latencies_ms.append(1000 * (time.perf_counter() - start))
    return median(latencies_ms)


WAYS: dict[str, Callable[[Path, float], float]] = {"ours": ours, "benchmark_app": benchmark_app, "loop": loop}


def report(rows: list[dict[str, Any]], arguments: Namespace) -> None:
    content = {
        "ratios": {f"{row['model']}/{row['runtime']}": row["ratio"] for row in rows},
        "rows": rows,
        "seconds": arguments.seconds,
        "machine": machine(),
        "versions": versions() | {name: version(name) for name in ("onnxruntime", "openvino")},
    }
    print_table(
        "Our median latency over that of the runtime's own tool",
        ("model", "runtime", "other", "ours, ms", "other, ms", "ratio", "of all"),
        [
            (
                *(row[key] for key in ("model", "runtime", "other")),
                *(f"{median(row[key]):.3f}" for key in ("ours_p50_ms", "other_p50_ms")),
                f"{row['ratio']:.3f}",
                f"{min(row['ratios']):.3f} to {max(row['ratios']):.3f}",
            )
            for row in rows
        ],
    )
    deliver(content, arguments, default=None if arguments.quick else RESULTS / "latency_agreement.json")


if __name__ == "__main__":
    main()

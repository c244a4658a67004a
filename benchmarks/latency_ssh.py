"""Whether a measurement over SSH finds what one on this machine finds: alternately, the same file, core and protocol.

The device must be this machine, reached over SSH; docs/devices.md says how. ``within`` counts the repetitions in which
the two intervals of p50 overlap; a ratio is that over SSH to that here.

    .venv/bin/python benchmarks/latency_ssh.py --device ssh://me@localhost           # results/latency_ssh.json
    .venv/bin/python benchmarks/latency_ssh.py --device ssh://me@localhost --quick --json
"""

import sys
import tempfile
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from _common import RESULTS, deliver, machine, options, print_table, versions

import exporters
from exporters.profiling import JobOptions, Profile, ProfileOptions, profile
from exporters.profiling.devices import Device, DeviceSettings, open_device

MODEL = "resnet18"
REPETITIONS = 10
HOW = ProfileOptions(min_runs=100, min_seconds=4.0, max_seconds=20.0)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", required=True, metavar="URL", help="this machine, as ssh://user@host:port")
    parser.add_argument("--core", type=int, help="number of the core to measure on (default: the last one)")
    arguments = parser.parse_args()
    there = open_device(DeviceSettings(url=arguments.device, name="ssh", python=sys.executable))
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        path = Path(folder, "student.onnx")
        exporters.export(timm.create_model(MODEL).eval(), torch.randn(1, 3, 96, 96), to="onnx", path=path)
        rows = [
            {
                name: figures(measure(path, device, arguments.core))
                for name, device in (("here", "local"), ("ssh", there))
            }
            for _ in range(3 if arguments.quick else REPETITIONS)
        ]
    report(rows, arguments)


def measure(path: Path, device: Device | str, core: int | None) -> Profile:
    job = JobOptions(cores=None if core is None else (core,), cold_starts=0)
    return profile(path, device=device, threads=1, options=HOW, job=job)


def figures(measured: Profile) -> dict[str, Any]:
    """Median latency with its interval, ms, and whether it can be believed."""
    estimate = measured.p50_ms
    if estimate is None:
        raise SystemExit("too few runs for a median")
    return {
        "p50_ms": estimate.value,
        "interval_ms": [estimate.low, estimate.high],
        "steady": measured.steady,
        "disturbed": measured.disturbed,
    }


def report(rows: list[dict[str, Any]], arguments: Namespace) -> None:
    ratios = [row["ssh"]["p50_ms"] / row["here"]["p50_ms"] for row in rows]
    within = sum(_overlap(row["ssh"]["interval_ms"], row["here"]["interval_ms"]) for row in rows)
    content = {
        "within": within,
        "ratio": median(ratios),
        "ratios": ratios,
        "rows": rows,
        "machine": machine(),
        "versions": versions() | {name: version(name) for name in ("asyncssh", "onnxruntime")},
    }
    print_table(
        f"{MODEL} over SSH and here: intervals overlap in {within} of {len(rows)}, median ratio {median(ratios):.3f}",
        ("repetition", "here, ms", "over SSH, ms", "ratio"),
        [
            (str(index), *(_text(row[name]) for name in ("here", "ssh")), f"{ratio:.3f}")
            for index, (row, ratio) in enumerate(zip(rows, ratios, strict=True))
        ],
    )
    deliver(content, arguments, default=None if arguments.quick else RESULTS / "latency_ssh.json")


def _overlap(first: list[float], second: list[float]) -> bool:
    return first[0] <= second[1] and second[0] <= first[1]


def _text(found: dict[str, Any]) -> str:
    low, high = found["interval_ms"]
    return f"{found['p50_ms']:.3f} ({low:.3f} to {high:.3f}){', disturbed' if found['disturbed'] else ''}"


if __name__ == "__main__":
    main()

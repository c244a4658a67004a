"""Which networks reach which runtime: converted, checked against PyTorch, with a dynamic batch, in int8.

Random weights, batch norms with random affine maps and realistic statistics, small inputs. Calibration is on real
images (Fashion-MNIST, enlarged) or sound that resembles speech. Every row has a process of its own and a time limit; a
file of an earlier run is continued.

    .venv/bin/python benchmarks/export_coverage.py                    # results/export_coverage.json
    .venv/bin/python benchmarks/export_coverage.py --quick --json
    .venv/bin/python benchmarks/export_coverage.py --models resnet18 --runtimes onnx --again
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from _common import RESULTS, machine, options, print_table, versions, write_json
from _coverage_networks import CANDIDATES
from _coverage_page import counts
from _coverage_row import run

from exporters.runtimes import EXPORTERS

FILE = RESULTS / "export_coverage.json"
QUICK = ("mobilenetv3_small_100", "vit_tiny_patch16_224", "hubert")
PACKAGES = (
    "torchvision",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "nncf",
    "coremltools",
    "coreai-torch",
    "executorch",
    "torchao",
)
Key = tuple[str, str]


def main() -> None:
    arguments = parse()
    os.environ["OMP_NUM_THREADS"] = "1"
    target = arguments.output or (None if arguments.quick else FILE)
    rows = known(target) if target else {}
    result = {"machine": machine(), "versions": versions() | _installed()}
    for model, runtime in wanted(arguments, rows):
        rows[model, runtime] = measure(model, runtime, timeout_s=arguments.timeout)
        print(progress(rows[model, runtime]), file=sys.stderr, flush=True)
        if target:
            write_json(target, result | {"rows": ordered(rows)})
    result["rows"] = ordered(rows)
    found = {runtime: counts(result["rows"], runtime) for runtime in EXPORTERS}
    heads = ("runtime", *next(iter(found.values())))
    print_table("Networks", heads, [(name, *map(str, each.values())) for name, each in found.items()])
    if arguments.json:
        print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--models", nargs="+", choices=CANDIDATES, metavar="NAME", help="networks (default: all)")
    parser.add_argument("--runtimes", nargs="+", choices=EXPORTERS, default=tuple(EXPORTERS), help="(default: all)")
    parser.add_argument("--timeout", type=float, default=600.0, help="most time for one row, s (%(default)s)")
    parser.add_argument("--again", action="store_true", help="measure rows anew that the result file has")
    arguments = parser.parse_args()
    arguments.models = arguments.models or (QUICK if arguments.quick else tuple(CANDIDATES))
    return arguments


def wanted(arguments: argparse.Namespace, rows: Mapping[Key, Any]) -> Iterator[Key]:
    """Model and runtime of every row to measure."""
    pairs = ((model, runtime) for model in arguments.models for runtime in arguments.runtimes)
    return (pair for pair in pairs if arguments.again or pair not in rows)


def known(file: Path) -> dict[Key, dict[str, Any]]:
    """Rows of an earlier run."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    return {(row["model"], row["runtime"]): row for row in rows}


def ordered(rows: Mapping[Key, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the tables of networks and runtimes."""
    models, runtimes = list(CANDIDATES), list(EXPORTERS)
    return sorted(rows.values(), key=lambda row: (models.index(row["model"]), runtimes.index(row["runtime"])))


def measure(model: str, runtime: str, *, timeout_s: float) -> dict[str, Any]:
    """One row, from a process of its own; what ended that process early is the row's reason."""
    # Forked from a process that has PyTorch and the networks imported, and no runtime.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["_coverage_row"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "row.json")
        process = context.Process(target=run, args=(model, runtime, file))
        process.start()
        process.join(timeout_s)
        reason = None
        if process.exitcode is None:
            process.kill()
            process.join()
            reason = f"not finished after {timeout_s:g} s"
        elif process.exitcode != 0:
            reason = f"ended with status {process.exitcode}: {_last_line(file.with_suffix('.messages'))}"
        if not file.is_file():
            raise SystemExit(f"the row of {model} and {runtime} could not begin: {reason}")
        row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    stage = row.pop("stage")
    if reason:
        row["why_not"][stage] = reason
    return row


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")


def progress(row: Mapping[str, Any]) -> str:
    """One line that says how a row ended."""
    error = f"{row['parity']['relative_l2']:.1e}" if row["parity"] else "no figures"
    cosine = f"{row['int8']['cosine']:.4f}" if row["int8"] and "cosine" in row["int8"] else "no int8"
    batch = "dynamic" if row["dynamic_batch"] else "static"
    head = f"{row['runtime']} {row['model']}: " + (f"{error}, {batch}, {cosine}" if row["converts"] else "failed")
    reasons = "".join(f"\n  {stage}: {reason[:300]}" for stage, reason in row["why_not"].items())
    return f"{head} ({sum(row['seconds'].values()):.0f} s){reasons}"


def _installed() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()

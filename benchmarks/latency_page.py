"""Latency of the demo's networks on this machine: every runtime that runs here, every precision, several batch sizes.

Teacher and distilled student are trained as in `lightning-kd demo`, exported, evaluated on the demo's 500 test images
in their runtime, and measured by the protocol of docs/latency.md: fresh processes on a pinned core, one thread, five
cold starts with and without the runtime's cache. PyTorch is measured eagerly and compiled, in this process.

    .venv/bin/python benchmarks/latency_page.py                     # results/latency_page.json, docs/latency_results.md
    .venv/bin/python benchmarks/latency_page.py --quick --json      # the student in fp32, one image, briefly; no files
"""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _document
from _common import RESULTS, deliver, machine, options, print_table, versions
from _latency_page import interval
from torch import nn
from torch.utils.data import TensorDataset

import exporters
from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.profiling import JobOptions, Profile, ProfileOptions, profile
from exporters.runtimes import EXPORTERS, import_runtime
from lightning_kd.compression.size import network_size
from lightning_kd.demo.deployment import session_accuracy
from lightning_kd.demo.digits import Digits
from lightning_kd.demo.training import Lesson, train_all

FILE = RESULTS / "latency_page.json"
RUNTIMES = ("pytorch", "pytorch_compiled", "onnx", "openvino", "executorch")
THREADS = 1
CALIBRATION_IMAGES = 300
PACKAGES = ("onnxruntime", "openvino", "executorch", "nncf")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        lesson: How much is trained.
        networks: Which networks.
        batch_sizes: Samples per run.
        precisions: Which precisions of those that a runtime has; ``None`` for all.
        measurement: How long each is measured.
        cold_starts: Fresh processes without and with the runtime's cache, at the first batch size.
    """

    lesson: Lesson
    networks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    precisions: tuple[str, ...] | None
    measurement: ProfileOptions
    cold_starts: int


FULL = Plan(
    lesson=Lesson(seeds=(0,)),
    networks=("teacher", "student"),
    batch_sizes=(1, 8, 32),
    precisions=None,
    measurement=ProfileOptions(min_runs=400, min_seconds=2.0, max_seconds=20.0),
    cold_starts=5,
)
QUICK = Plan(
    lesson=Lesson(seeds=(0,), teacher_epochs=1, student_epochs=1),
    networks=("student",),
    batch_sizes=(1,),
    precisions=("fp32",),
    measurement=ProfileOptions(
        min_runs=40, min_seconds=0.05, max_seconds=1.0, min_warm_up_seconds=0.05, max_warm_up_seconds=0.5
    ),
    cold_starts=1,
)


def main() -> None:
    parser = options(__doc__, "--fast")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    arguments = parser.parse_args()
    plan = QUICK if arguments.fast else FULL
    started = machine()
    trained = train_all(plan.lesson, on_epoch=lambda: None)
    networks = {"teacher": trained.teacher, "student": trained.distilled.networks[0]}
    digits = Digits(seed=0)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in plan.networks:
            bench = Bench(name, networks[name], digits, plan, Path(folder))
            for runtime in arguments.runtimes:
                rows += bench.in_pytorch(runtime) if runtime.startswith("pytorch") else bench.exported(runtime)
    report(rows, started, plan, arguments)


class Bench:
    """Exports and measures one network.

    Args:
        name: Its name.
        network: The network.
        digits: Images to calibrate and evaluate on.
        plan: How much is measured.
        folder: Where exported files go.
    """

    def __init__(self, name: str, network: nn.Module, digits: Digits, plan: Plan, folder: Path) -> None:
        self.name, self.network, self.plan, self.folder = name, network, plan, folder
        self.test: TensorDataset = digits.test
        self.images = digits.train_images
        self.size = network_size(network, self.images[:1])

    def in_pytorch(self, runtime: str) -> Iterator[dict[str, Any]]:
        """Rows of PyTorch itself, eager or compiled; one row that says why if it cannot be compiled."""
        try:
            session = exporters.pytorch_session(
                self.network,
                self.images[:2],
                dynamic_batch=(1, 32),
                threads=THREADS,
                compiled=runtime == "pytorch_compiled",
            )
        except ExportError as error:
            yield self._row(runtime, "fp32", None, why_not=" ".join(str(error).split()))
            return
        accuracy = session_accuracy(session, self.test)
        for batch_size in self.plan.batch_sizes:
            measured = profile(session, batch_size=batch_size, options=self.plan.measurement)
            yield self._row(runtime, "fp32", batch_size, profile=measured, accuracy=accuracy)

    def exported(self, runtime: str) -> Iterator[dict[str, Any]]:
        """Rows of every precision of a runtime; one that cannot be had is a row that says why."""
        offered = import_runtime(EXPORTERS, runtime)().precisions
        for precision in (name for name in offered if self.plan.precisions is None or name in self.plan.precisions):
            try:
                artifact = self._export(runtime, precision)
                accuracy = session_accuracy(exporters.load(artifact, threads=THREADS), self.test)
            except ExportError as error:
                yield self._row(runtime, precision, None, why_not=" ".join(str(error).split()))
                continue
            for batch_size in self.plan.batch_sizes:
                measured = self._measure(artifact, batch_size)
                yield self._row(runtime, precision, batch_size, profile=measured, accuracy=accuracy, artifact=artifact)

    def _export(self, runtime: str, precision: str) -> Artifact:
        suffix = import_runtime(EXPORTERS, runtime)().suffix
        more: dict[str, Any] = {"calibration": self.images[:CALIBRATION_IMAGES]} if precision == "int8" else {}
        return exporters.export(
            self.network,
            self.images[:2],
            to=runtime,
            path=self.folder / f"{self.name}-{precision}{suffix}",
            precision=precision,
            dynamic_batch=(1, 32),
            **more,
        )

    def _measure(self, artifact: Artifact, batch_size: int) -> Profile:
        return profile(
            artifact,
            threads=THREADS,
            batch_size=batch_size,
            options=self.plan.measurement,
            device="local",
            job=JobOptions(cold_starts=self.plan.cold_starts if batch_size == self.plan.batch_sizes[0] else 0),
        )

    def _row(
        self,
        runtime: str,
        precision: str,
        batch_size: int | None,
        *,
        profile: Profile | None = None,
        accuracy: float | None = None,
        artifact: Artifact | None = None,
        why_not: str | None = None,
    ) -> dict[str, Any]:
        return {
            "network": self.name,
            "runtime": runtime,
            "precision": precision,
            "batch_size": batch_size,
            "parameters": self.size.parameters,
            "macs_per_sample": self.size.macs,
            "size_bytes": None if artifact is None else artifact.size_bytes,
            "accuracy": accuracy,
            "latency": None if profile is None else profile.summary(),
            "why_not": why_not,
        }


def report(rows: list[dict[str, Any]], started: dict[str, Any], plan: Plan, arguments: Namespace) -> None:
    content = {
        "rows": rows,
        "threads": THREADS,
        "min_runs": plan.measurement.min_runs,
        "min_seconds": plan.measurement.min_seconds,
        "cold_starts": plan.cold_starts,
        "machine": started,
        "versions": versions() | {name: version(name) for name in PACKAGES},
    }
    columns = ("network", "runtime", "precision", "batch", "p50, ms", "accuracy, %")
    print_table("Latency of the demo's networks, one thread", columns, [_text(row) for row in rows])
    if deliver(content, arguments, default=None if arguments.fast else FILE) == FILE:
        _document.LATENCY.write_text(_document.with_tables(_document.LATENCY.read_text()))


def _text(row: dict[str, Any]) -> tuple[str, ...]:
    head = (row["network"], row["runtime"], row["precision"])
    if row["latency"] is None:
        return (*head, "", row["why_not"][:40], "")
    return (*head, str(row["batch_size"]), interval(row["latency"]["p50_ms"]), f"{100 * row['accuracy']:.1f}")


if __name__ == "__main__":
    main()

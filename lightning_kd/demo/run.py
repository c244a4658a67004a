"""The demo from start to end."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from exporters.profiling import ProfileOptions
from exporters.profiling.runner.machine import read_machine
from lightning_kd.demo.deployment import STEPS, Name, deploy
from lightning_kd.demo.digits import Digits
from lightning_kd.demo.page import demo_report
from lightning_kd.demo.result import DemoResult
from lightning_kd.demo.training import Lesson, train_all
from lightning_kd.errors import SetupError
from lightning_kd.report import write_report


@dataclass(frozen=True, slots=True)
class Programme:
    """How much the demo does.

    Attributes:
        lesson: How much is trained.
        measurement: How long each latency is measured.
    """

    lesson: Lesson
    measurement: ProfileOptions

    @property
    def deployments(self) -> int:
        """How many deployments are made."""
        return STEPS


FULL = Programme(Lesson(), ProfileOptions(min_runs=400, min_seconds=1.0, max_seconds=10.0, max_warm_up_seconds=5.0))
FAST = Programme(
    Lesson(seeds=(0,), teacher_epochs=2, student_epochs=2),
    ProfileOptions(min_runs=40, min_seconds=0.05, max_seconds=1.0, min_warm_up_seconds=0.05, max_warm_up_seconds=0.5),
)


def run_demo(
    programme: Programme, folder: Path, *, on_epoch: Callable[[], None], on_deployment: Callable[[], None]
) -> DemoResult:
    """Train, distil, export, verify, profile, and write ``report.html`` and ``result.json``.

    Args:
        programme: How much to do.
        folder: Where files go; made if there is none.
        on_epoch: Called after every epoch, `Lesson.epochs` times.
        on_deployment: Called after every deployment, `Programme.deployments` times.

    Returns:
        What was found.

    Raises:
        SetupError: If ``folder`` cannot be written.
        ExportError: If an export fails.
    """
    start = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"`output` must be a folder that can be written, got {folder}: {error.strerror}.") from error
    machine = read_machine()
    trained = train_all(programme.lesson, on_epoch)
    student = trained.distilled.networks[0]
    networks: dict[Name, nn.Module] = {"teacher": trained.teacher, "student": student}
    deployments = deploy(networks, Digits(seed=0).test, folder, programme.measurement, on_deployment)
    result = DemoResult(programme.lesson, trained, deployments, machine, time.perf_counter() - start)
    write_report(demo_report(result), folder / "report.html")
    (folder / "result.json").write_text(
        json.dumps(result.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    return result

"""Measuring the student of a running training, for the callbacks that log and judge its latency."""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

import exporters
from exporters.example import ExampleInputs
from exporters.parity import Precision
from exporters.profiling import Profile, ProfileOptions, profile
from exporters.quantization.fake import quantization_of
from exporters.runtimes import EXPORTERS, import_runtime
from exporters.session import Session
from lightning_kd._checks import check_choice, check_positive
from lightning_kd.callbacks._student import find_student, student_example
from lightning_kd.compression.size import NetworkSize, network_size

Runtime = Literal["pytorch", "onnx", "openvino", "executorch"]
QUICK = ProfileOptions(
    min_runs=100, min_seconds=0.5, min_warm_up_seconds=0.1, max_warm_up_seconds=5.0, max_seconds=10.0
)


class Measured(NamedTuple):
    """A student in one runtime.

    Args:
        profile: Its latency.
        size_bytes: Size of its exported files; ``None`` in PyTorch itself.
    """

    profile: Profile
    size_bytes: int | None


class StudentLatency:
    """Exports the student as it is and measures it in each runtime, on this machine's processor.

    Args:
        runtimes: Name or names of `Runtime`.
        student: Path of the student inside the LightningModule.
        batch_size: Samples per run.
        threads: Threads that one run may use; ``None`` for the runtime's default.
        options: How long to measure.

    Raises:
        ValueError: If a runtime is unknown or there is none, or ``batch_size`` is not above 0.
    """

    def __init__(
        self,
        runtimes: Runtime | Sequence[Runtime],
        *,
        student: str,
        batch_size: int,
        threads: int | None,
        options: ProfileOptions,
    ) -> None:
        self.runtimes: tuple[Runtime, ...] = (runtimes,) if isinstance(runtimes, str) else tuple(runtimes)
        if not self.runtimes:
            raise ValueError("`runtimes` must name at least one runtime, got none.")
        for runtime in self.runtimes:
            check_choice("runtimes", runtime, get_args(Runtime))
        check_positive("batch_size", batch_size)
        self.student = student
        self.batch_size = batch_size
        self.threads = threads
        self.options = options

    def prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that the runtimes are installed, and find what the student takes.

        Raises:
            MissingRuntimeError: If a runtime is not installed.
            SetupError: If the student or its input cannot be found.
        """
        for runtime in self.runtimes:
            if runtime != "pytorch":
                import_runtime(EXPORTERS, runtime)
        student = find_student(pl_module, self.student)
        self._example: ExampleInputs = student_example(trainer, pl_module, student, batch_size=self.batch_size)

    def measure(self, pl_module: pl.LightningModule) -> dict[Runtime, Measured]:
        """Measure a copy of the student as it is now.

        Raises:
            ExportError: If an export fails.
        """
        student = self._copy(pl_module)
        return {runtime: self._measure(student, runtime) for runtime in self.runtimes}

    def size(self, pl_module: pl.LightningModule) -> NetworkSize:
        """Parameters, and multiply-accumulates of one batch, of the student as it is now."""
        return network_size(self._copy(pl_module), self._example)

    def _copy(self, pl_module: pl.LightningModule) -> nn.Module:
        return copy.deepcopy(find_student(pl_module, self.student)).cpu()

    def _measure(self, student: nn.Module, runtime: Runtime) -> Measured:
        if runtime == "pytorch":
            session = exporters.pytorch_session(student, self._example, threads=self.threads)
            return Measured(self._profile(session), None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"student{import_runtime(EXPORTERS, runtime)().suffix}"
            precision: Precision = "fp32" if quantization_of(student) is None else "int8"
            artifact = exporters.export(student, self._example, to=runtime, path=path, precision=precision)
            return Measured(self._profile(exporters.load(artifact, threads=self.threads)), artifact.size_bytes)

    def _profile(self, session: Session) -> Profile:
        return profile(session, batch_size=self.batch_size, options=self.options)


def validation_is_due(trainer: pl.Trainer, every_n_epochs: int) -> bool:
    """Whether this end of a validation epoch, in ``fit`` and past the sanity check, is one to measure at."""
    fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
    return fitting and (trainer.current_epoch + 1) % every_n_epochs == 0

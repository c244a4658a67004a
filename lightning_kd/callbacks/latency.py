"""The callback that watches the student's latency while it trains."""

import copy
import tempfile
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from typing_extensions import override

import exporters
from exporters.parity import Precision
from exporters.profiling import Profile, ProfileOptions, profile
from exporters.quantization.fake import quantization_of
from exporters.runtimes import EXPORTERS, import_runtime
from exporters.session import Session
from lightning_kd._checks import check_choice, check_positive
from lightning_kd.callbacks._student import find_student, student_example

Runtime = Literal["pytorch", "onnx", "openvino"]
QUICK = ProfileOptions(
    min_runs=100, min_seconds=0.5, min_warm_up_seconds=0.1, max_warm_up_seconds=5.0, max_seconds=10.0
)


class LatencyMonitor(pl.Callback):
    """Measures the student's latency on a runtime of this machine's CPU after validation epochs.

    For every runtime but PyTorch the student is exported to a temporary folder, in int8 if it is trained to round,
    checked and measured there. Under DDP the first process measures while the others wait.

    Logged: ``latency/<runtime>_p50_ms`` and ``latency/<runtime>_p90_ms``, milliseconds for one batch. A p90 needs 36
    runs; without enough of them it is left out.

    Args:
        runtime: ``"pytorch"`` (eager), ``"onnx"`` (ONNX Runtime) or ``"openvino"``.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        every_n_epochs: Validation epochs between measurements.
        batch_size: Samples per run.
        threads: Threads that one run may use; ``None`` for the runtime's default.
        options: How long to measure; at least 100 runs and half a second by default.

    Raises:
        ValueError: If ``runtime`` is unknown, or a number is not above 0.

    Example:
        >>> import lightning as L
        >>> trainer = L.Trainer(callbacks=[LatencyMonitor("openvino", student="net", every_n_epochs=5)], logger=False)
    """

    def __init__(
        self,
        runtime: Runtime = "onnx",
        *,
        student: str = "",
        every_n_epochs: int = 1,
        batch_size: int = 1,
        threads: int | None = None,
        options: ProfileOptions = QUICK,
    ) -> None:
        check_choice("runtime", runtime, ("pytorch", "onnx", "openvino"))
        check_positive("every_n_epochs", every_n_epochs)
        check_positive("batch_size", batch_size)
        self.runtime: Runtime = runtime
        self.student = student
        self.every_n_epochs = every_n_epochs
        self.batch_size = batch_size
        self.threads = threads
        self.options = options
        self.profiles: list[Profile] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if self.runtime != "pytorch":
            import_runtime(EXPORTERS, self.runtime)
        student = find_student(pl_module, self.student)
        self._example = student_example(trainer, pl_module, student, batch_size=self.batch_size)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        trainer.strategy.barrier("latency")
        if trainer.is_global_zero:
            measured = self._measure(copy.deepcopy(find_student(pl_module, self.student)))
            self.profiles.append(measured)
            percentiles = {"p50": measured.p50_ms, "p90": measured.p90_ms}
            for name, estimate in percentiles.items():
                if estimate is not None:
                    pl_module.log(f"latency/{self.runtime}_{name}_ms", estimate.value, rank_zero_only=True)
        trainer.strategy.barrier("latency")

    def _measure(self, student: nn.Module) -> Profile:
        if self.runtime == "pytorch":
            return self._profile(exporters.pytorch_session(student, self._example, threads=self.threads))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"student{import_runtime(EXPORTERS, self.runtime)().suffix}"
            precision: Precision = "fp32" if quantization_of(student) is None else "int8"
            artifact = exporters.export(student, self._example, to=self.runtime, path=path, precision=precision)
            return self._profile(exporters.load(artifact, threads=self.threads))

    def _profile(self, session: Session) -> Profile:
        return profile(session, batch_size=self.batch_size, options=self.options)

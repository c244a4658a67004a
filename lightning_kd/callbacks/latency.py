"""The callback that watches the student's latency while it trains."""

from collections.abc import Sequence

import lightning.pytorch as pl
from typing_extensions import override

from exporters.profiling import Profile, ProfileOptions
from lightning_kd._checks import check_positive
from lightning_kd.callbacks._latency import QUICK, Measured, Runtime, StudentLatency, validation_is_due
from lightning_kd.compression.size import NetworkSize


class LatencyMonitor(pl.Callback):
    """Measures the student's latency on runtimes of this machine's processor after validation epochs.

    For every runtime but PyTorch the student is exported to a temporary folder, in int8 if it is trained to round,
    checked and measured there. Under DDP the first process measures while the others wait.

    Logged, after each measurement:

    - ``latency/<runtime>_p50_ms`` and ``latency/<runtime>_p90_ms``, milliseconds for one batch. A p90 needs 36 runs;
      without enough of them it is left out.
    - ``latency/<runtime>_bytes``, size of the exported files.
    - ``latency/parameters``, and ``latency/macs``, multiply-accumulates of one batch in matrix products, convolutions
      and attention.

    Args:
        runtimes: ``"pytorch"`` (eager), ``"onnx"`` (ONNX Runtime), ``"openvino"``, ``"executorch"``, or several.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        every_n_epochs: Validation epochs between measurements.
        batch_size: Samples per run.
        threads: Threads that one run may use; ``None`` for the runtime's default.
        options: How long to measure; at least 100 runs and half a second by default.

    Attributes:
        profiles: What was measured, in order, by runtime.

    Raises:
        ValueError: If a runtime is unknown, or a number is not above 0.

    Example:
        >>> import lightning as L
        >>> monitor = LatencyMonitor(["onnx", "openvino"], student="net", every_n_epochs=5)
        >>> trainer = L.Trainer(callbacks=[monitor], logger=False)
    """

    def __init__(
        self,
        runtimes: Runtime | Sequence[Runtime] = "onnx",
        *,
        student: str = "",
        every_n_epochs: int = 1,
        batch_size: int = 1,
        threads: int | None = None,
        options: ProfileOptions = QUICK,
    ) -> None:
        check_positive("every_n_epochs", every_n_epochs)
        self._latency = StudentLatency(
            runtimes, student=student, batch_size=batch_size, threads=threads, options=options
        )
        self.every_n_epochs = every_n_epochs
        self.profiles: dict[Runtime, list[Profile]] = {runtime: [] for runtime in self._latency.runtimes}

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._latency.prepare(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not validation_is_due(trainer, self.every_n_epochs):
            return
        trainer.strategy.barrier("latency")
        if trainer.is_global_zero:
            measured = self._latency.measure(pl_module)
            for runtime, found in measured.items():
                self.profiles[runtime].append(found.profile)
            figures = latency_figures(measured, self._latency.size(pl_module))
            pl_module.log_dict(figures, rank_zero_only=True)
        trainer.strategy.barrier("latency")


def latency_figures(measured: dict[Runtime, Measured], size: NetworkSize) -> dict[str, float]:
    """What `LatencyMonitor` logs, by key."""
    figures: dict[str, float] = {"latency/parameters": size.parameters, "latency/macs": size.macs}
    for runtime, (profile, size_bytes) in measured.items():
        percentiles = {"p50": profile.p50_ms, "p90": profile.p90_ms}
        figures |= {f"latency/{runtime}_{name}_ms": found.value for name, found in percentiles.items() if found}
        if size_bytes is not None:
            figures[f"latency/{runtime}_bytes"] = size_bytes
    return {key: float(figure) for key, figure in figures.items()}

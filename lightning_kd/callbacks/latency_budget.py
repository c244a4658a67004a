"""The callback that holds the student to a latency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from exporters.profiling import Estimate, ProfileOptions
from exporters.profiling.intervals import required_samples
from exporters.profiling.result import QUANTILES
from lightning_kd._checks import check_choice, check_positive
from lightning_kd.callbacks._latency import QUICK, Runtime, StudentLatency, validation_is_due

Percentile = Literal["p50", "p90", "p95", "p99"]
Standing = Literal["met", "missed", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetVerdict:
    """Whether the student meets its budget on one runtime.

    Attributes:
        runtime: Which one.
        percentile: Which percentile of the latency is held to the budget.
        budget_ms: The budget, ms for one batch.
        latency_ms: The percentile with its interval; ``None`` if too few runs fitted into the time.
        trusted: Whether the warm-up became steady and other processes left the machine alone, as far as is known.
    """

    runtime: str
    percentile: Percentile
    budget_ms: float
    latency_ms: Estimate | None
    trusted: bool = True

    @property
    def standing(self) -> Standing:
        """Met or missed only where the whole interval lies on that side of the budget.

        Example:
            >>> near = Estimate(2.1, 1.9, 2.4)
            >>> BudgetVerdict(runtime="onnx", percentile="p90", budget_ms=2.0, latency_ms=near).standing
            'undecided'
        """
        if self.latency_ms is None:
            return "undecided"
        if self.latency_ms.low > self.budget_ms:
            return "missed"
        return "met" if self.latency_ms.high <= self.budget_ms else "undecided"

    @property
    def text(self) -> str:
        """One sentence for people."""
        found = self.latency_ms
        measured = "too few runs" if found is None else f"{found.value:.3g} ms ({found.low:.3g} to {found.high:.3g})"
        doubt = "" if self.trusted else " The machine was busy or found no steady state: measure again when it is idle."
        return (
            f"The student's {self.percentile} on {self.runtime} is {measured}; the budget of {self.budget_ms:g} ms is "
            f"{self.standing}.{doubt}"
        )


class LatencyBudget(pl.Callback):
    """Warns of a student that misses a latency on this machine's processor, or ends its training.

    The student is measured as by `LatencyMonitor`, before the first step, since latency does not wait for accuracy, and
    again after validation epochs if asked to, for students that change their shape. A budget is missed only if the
    whole interval lies above it, so that noise stops no run; where the interval holds the budget the text says
    ``undecided``. Under DDP the first process measures and decides, and all stop together.

    Logged, after each measurement: ``latency_budget/<runtime>``, the percentile over the budget (dimensionless: above 1
    it is too slow).

    Args:
        budget_ms: Longest latency of one batch, ms.
        runtimes: As for `LatencyMonitor`.
        percentile: Which percentile is held to it: ``"p50"``, ``"p90"``, ``"p95"`` or ``"p99"``.
        on_miss: ``"warn"`` or ``"stop"``.
        student: Path of the student inside the LightningModule; ``""`` is the module itself.
        every_n_epochs: Validation epochs between further measurements; ``None`` for none.
        batch_size: Samples per run.
        threads: Threads that one run may use; ``None`` for the runtime's default.
        options: How long to measure; at least 100 runs and half a second by default. A p99 needs 368 runs.

    Attributes:
        verdicts: What was found, measurement by measurement, by runtime.

    Raises:
        ValueError: If an argument is unknown or not above 0, or ``options`` ask for too few runs for the percentile.

    Example:
        >>> import lightning as L
        >>> budget = LatencyBudget(2.0, runtimes=["onnx", "openvino"], on_miss="stop", student="net")
        >>> trainer = L.Trainer(callbacks=[budget], logger=False)
    """

    def __init__(
        self,
        budget_ms: float,
        *,
        runtimes: Runtime | Sequence[Runtime] = "onnx",
        percentile: Percentile = "p90",
        on_miss: Literal["warn", "stop"] = "warn",
        student: str = "",
        every_n_epochs: int | None = None,
        batch_size: int = 1,
        threads: int | None = None,
        options: ProfileOptions = QUICK,
    ) -> None:
        check_positive("budget_ms", budget_ms)
        check_choice("percentile", percentile, get_args(Percentile))
        check_choice("on_miss", on_miss, ("warn", "stop"))
        if every_n_epochs is not None:
            check_positive("every_n_epochs", every_n_epochs)
        needed = required_samples(QUANTILES[f"{percentile}_ms"])
        if options.min_runs < needed:
            raise ValueError(
                f"`options.min_runs` must be at least {needed} for an interval of the {percentile}, "
                f"got {options.min_runs}."
            )
        self._latency = StudentLatency(
            runtimes, student=student, batch_size=batch_size, threads=threads, options=options
        )
        self.budget_ms = budget_ms
        self.percentile = percentile
        self.on_miss = on_miss
        self.every_n_epochs = every_n_epochs
        self.verdicts: list[Mapping[str, BudgetVerdict]] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._latency.prepare(trainer, pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_epochs is not None and validation_is_due(trainer, self.every_n_epochs):
            self._check(trainer, pl_module)

    def _check(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        verdicts = self._judge(pl_module) if trainer.is_global_zero else {}
        verdicts = trainer.strategy.broadcast(verdicts)
        self.verdicts.append(verdicts)
        for runtime, verdict in verdicts.items():
            if verdict.latency_ms is not None:
                pl_module.log(f"latency_budget/{runtime}", verdict.latency_ms.value / verdict.budget_ms)
            tell = rank_zero_warn if verdict.standing == "missed" else rank_zero_info
            tell(verdict.text)
        if self.on_miss == "stop" and any(verdict.standing == "missed" for verdict in verdicts.values()):
            trainer.should_stop = True

    def _judge(self, pl_module: pl.LightningModule) -> dict[str, BudgetVerdict]:
        verdicts = {}
        for runtime, (profile, _) in self._latency.measure(pl_module).items():
            percentiles = {"p50": profile.p50_ms, "p90": profile.p90_ms, "p95": profile.p95_ms, "p99": profile.p99_ms}
            verdicts[str(runtime)] = BudgetVerdict(
                runtime=runtime,
                percentile=self.percentile,
                budget_ms=self.budget_ms,
                latency_ms=percentiles[self.percentile],
                trusted=profile.steady and not profile.disturbed,
            )
        return verdicts

"""LatencyBudget in real training runs, and its verdict alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from exporters.profiling import Estimate, ProfileOptions
from lightning_kd import LatencyBudget
from lightning_kd.callbacks.latency_budget import BudgetVerdict
from lightning_kd.errors import SetupError

QUICK = ProfileOptions(min_runs=40, min_seconds=0, min_warm_up_seconds=0, max_warm_up_seconds=0.5)
NEVER_MS, ALWAYS_MS = 1e-4, 1e5
SCRIPT = Path(__file__).with_name("latency_budget_ddp_run.py")


def verdict(low, value, high, **more):
    return BudgetVerdict(runtime="onnx", percentile="p90", budget_ms=2.0, latency_ms=Estimate(value, low, high), **more)


@pytest.mark.parametrize(
    ("estimate", "standing"),
    [
        ((1.0, 1.5, 1.9), "met"),
        ((1.0, 1.5, 2.0), "met"),
        ((1.0, 1.5, 2.1), "undecided"),
        ((1.9, 2.5, 3.0), "undecided"),
        ((2.0, 2.5, 3.0), "undecided"),
        ((2.1, 2.5, 3.0), "missed"),
    ],
)
def test_only_a_whole_interval_on_one_side_decides(estimate, standing):
    assert verdict(*estimate).standing == standing


def test_too_few_runs_decide_nothing():
    found = BudgetVerdict(runtime="onnx", percentile="p99", budget_ms=2.0, latency_ms=None)
    assert found.standing == "undecided"
    assert "p99 on onnx is too few runs" in found.text


def test_the_text_has_every_figure_and_says_when_to_doubt_them():
    assert verdict(2.1, 2.5, 3.0).text == (
        "The student's p90 on onnx is 2.5 ms (2.1 to 3); the budget of 2 ms is missed."
    )
    assert "busy or found no steady state" in verdict(2.1, 2.5, 3.0, trusted=False).text


def test_a_student_that_misses_ends_its_training_before_the_first_step(classifier, loader, trainer, weights):
    budget = LatencyBudget(NEVER_MS, runtimes=["pytorch", "onnx"], on_miss="stop", student="net", options=QUICK)
    module, fitted = classifier(), trainer(max_epochs=3, callbacks=[budget])
    before = weights(module)
    with pytest.warns(UserWarning, match=r"p90 on (pytorch|onnx) is .* ms .*; the budget of 0\.0001 ms is missed"):
        fitted.fit(module, loader())
    assert fitted.global_step == 0
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert {runtime: found.standing for runtime, found in budget.verdicts[0].items()} == {
        "pytorch": "missed",
        "onnx": "missed",
    }


def test_a_warning_lets_the_training_go_on(classifier, loader, trainer):
    budget = LatencyBudget(NEVER_MS, runtimes="pytorch", student="net", options=QUICK)
    fitted = trainer(callbacks=[budget])
    with pytest.warns(UserWarning, match="is missed"):
        fitted.fit(classifier(), loader())
    assert fitted.global_step == 6
    found = budget.verdicts[0]["pytorch"]
    logged = fitted.callback_metrics["latency_budget/pytorch"].item()
    assert logged == pytest.approx(found.latency_ms.value / NEVER_MS, rel=1e-5)


class Widening(nn.Module):
    """A student that is replaced by a heavier one while it trains."""

    def __init__(self):
        super().__init__()
        self.first, self.heavy, self.is_heavy = nn.Linear(192, 5), nn.Linear(192, 30_000), False

    def forward(self, x):
        x = x.flatten(1)
        return self.first(x) + (self.heavy(x).mean() if self.is_heavy else 0)


def test_a_student_that_becomes_too_slow_is_stopped_after_that_epoch(classifier, loader, trainer):
    class Growing(classifier):
        def on_train_epoch_end(self):
            self.net.is_heavy = self.current_epoch == 1

        def validation_step(self, batch, batch_idx):
            return None

    budget = LatencyBudget(
        0.7, runtimes="pytorch", percentile="p50", on_miss="stop", student="net", every_n_epochs=1, options=QUICK
    )
    module, fitted = Growing(Widening()), trainer(max_epochs=9, callbacks=[budget])
    with pytest.warns(UserWarning, match="p50 on pytorch is .* is missed"):
        fitted.fit(module, loader(), loader())
    assert fitted.current_epoch < 9
    assert budget.verdicts[-1]["pytorch"].standing == "missed"


def test_a_budget_that_is_met_stops_and_warns_nothing(classifier, loader, trainer):
    budget = LatencyBudget(ALWAYS_MS, runtimes="pytorch", on_miss="stop", student="net", options=QUICK)
    fitted = trainer(max_epochs=2, callbacks=[budget])
    fitted.fit(classifier(), loader())
    assert fitted.global_step == 12
    assert len(budget.verdicts) == 1


def test_an_unknown_student_is_refused_in_setup(classifier, loader, trainer):
    with pytest.raises(SetupError, match="`nett` names no module"):
        trainer(callbacks=[LatencyBudget(1.0, student="nett", options=QUICK)]).fit(classifier(), loader())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_ms": 0}, "`budget_ms` must be a finite number above 0, got 0"),
        ({"percentile": "p80"}, "`percentile` must be one of .*'p90'.* got 'p80'"),
        ({"on_miss": "raise"}, "`on_miss` must be one of 'warn', 'stop', got 'raise'"),
        ({"runtimes": "tflite"}, "`runtimes` must be one of .* got 'tflite'"),
        ({"every_n_epochs": 0}, "`every_n_epochs` must be"),
        ({"percentile": "p99"}, r"`options.min_runs` must be at least 368 for an interval of the p99, got 40"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LatencyBudget(**{"budget_ms": 1.0, "options": QUICK, **arguments})


@pytest.mark.slow
def test_two_processes_stop_together(tmp_path):
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    steps = [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)]
    assert steps == ["0 missed", "0 missed"]

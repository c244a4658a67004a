"""Layers go back to floating point while the network is not good enough."""

import onnx
import pytest
import torch
from torch import nn

from exporters.errors import ConversionError, InputError
from exporters.exporter import Request
from exporters.network import prepare
from exporters.onnx_graph import to_onnx
from exporters.parity import Tolerance
from exporters.quantization.calibration import Calibration
from exporters.quantization.onnx import quantize_for_cpu
from exporters.quantization.options import QuantizationOptions


class Delicate(nn.Module):
    """One layer whose inputs hold a constant 1000 times larger than what matters: int8 cannot carry both."""

    def __init__(self):
        super().__init__()
        self.even = nn.Linear(8, 8)
        self.delicate = nn.Linear(9, 4, bias=False)
        self.delicate.weight.data[:, 8] = 0

    def forward(self, x):
        spread = torch.cat([self.even(x).tanh(), torch.full_like(x[:, :1], 1000.0)], 1)
        return self.delicate(spread)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return prepare(Delicate().eval(), torch.randn(1, 8))


@pytest.fixture(scope="module")
def calibration(network):
    return Calibration.from_data(torch.randn(40, 8), network.signature)


def quantize(network, calibration, evaluate=None, tolerance=None, **options):
    request = Request(
        precision="int8",
        calibration=calibration,
        quantization=QuantizationOptions(**options),
        tolerance=tolerance,
        evaluate=evaluate,
    )
    return quantize_for_cpu(to_onnx(network), network, request)


def test_the_layer_that_int8_ruins_goes_back_to_float_and_is_named(network, calibration):
    model, report = quantize(network, calibration)
    assert report.left_in_float == ("delicate",)
    assert max(trial.cosine for trial in report.trials[:3]) < 0.99
    assert (
        report.recipe == report.trials[-1].recipe == f"{report.recipe.split(',')[0]}, 1 most sensitive layers in float"
    )
    assert report.trials[-1].cosine >= 0.99
    onnx.checker.check_model(model)


def test_a_tolerance_that_does_not_ask_for_it_leaves_everything_in_int8(network, calibration):
    _, report = quantize(network, calibration, tolerance=Tolerance(relative_l2=10.0))
    assert report.left_in_float == ()
    assert len(report.trials) == 3


def test_time_that_is_over_ends_the_search_with_what_there_is(network, calibration):
    _, report = quantize(network, calibration, time_limit_s=1e-3)
    assert [trial.failure is None for trial in report.trials] == [True, False, False]
    assert "not tried" in report.trials[1].failure


def test_a_drop_that_is_not_met_in_time_is_an_error_that_says_what_was_reached(network, calibration):
    def distance(session):
        """Agreement with float, which a quantised network never has."""
        return 1.0 if session.properties["runtime"] == "pytorch" else 0.25

    with pytest.raises(ConversionError, match=r"reach a metric of 0\.9 .*, reached 0\.25 with a cosine"):
        quantize(network, calibration, evaluate=distance, max_drop=0.1)


def test_the_task_decides_before_the_similarity(network, calibration):
    seen = []

    def later_is_better(session):
        seen.append(session)
        return float(len(seen))

    _, report = quantize(network, calibration, evaluate=later_is_better)
    tried = [trial for trial in report.trials if trial.failure is None]
    assert report.recipe == max(tried, key=lambda trial: trial.metric).recipe


def test_a_drop_needs_a_metric(network, calibration):
    with pytest.raises(InputError, match=r"`max_drop` needs the task's metric"):
        quantize(network, calibration, max_drop=0.1)

import numpy as np
import pytest
import torch
from torch import nn

from exporters.errors import ParityError
from exporters.network import prepare
from exporters.rounding import HalfSession, check_half


class SquaredMean(nn.Module):
    """Overflows float16 where the squares do, although its output is small."""

    def forward(self, x):
        return x / (1 + x.square().mean(1, keepdim=True).sqrt())


def run(module: nn.Module, *inputs: torch.Tensor) -> tuple[HalfSession, np.ndarray]:
    network = prepare(module, inputs)
    session = HalfSession(network)
    return session, session.run(network.example_arrays)["output"]


def test_every_intermediate_value_is_rounded():
    class TwoSteps(nn.Module):
        def forward(self, x):
            return (x + 1) - 1

    # In float16 the spacing above 1 is 2^-10: 1 + 2^-12 is 1, so the difference is 0 instead of 2^-12.
    _, output = run(TwoSteps(), torch.full((1, 1), 2.0**-12))
    assert output.item() == 0.0


def test_weights_are_rounded():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1 + 2.0**-12)
    _, output = run(module, torch.ones(1, 1))
    assert output.item() == 1.0


def test_agrees_with_half_kernels_to_their_rounding(small_net, image):
    _, output = run(small_net, image)
    with torch.no_grad():
        expected = small_net.eval().half()(image.half()).float().numpy()
    np.testing.assert_allclose(output, expected, rtol=5e-3, atol=5e-3)


def test_integers_are_left_alone():
    class Shift(nn.Module):
        def forward(self, x):
            return x + 4097  # not a float16 number

    _, output = run(Shift(), torch.zeros(1, 1, dtype=torch.int64))
    assert output.item() == 4097


def test_the_first_operator_that_overflows_is_named():
    module = nn.Sequential(nn.Identity(), SquaredMean())
    session, output = run(module, torch.full((1, 4), 300.0))
    assert session.first_overflow == "`1` (aten.square.default)"
    assert np.isfinite(output).all()  # the damage does not show: every output is 0
    with pytest.raises(ParityError, match=r"made by `1` \(aten\.square\.default\); use precision='fp32'"):
        check_half(prepare(module, 300 + torch.randn(1, 4)))


def test_a_network_that_fits_passes(small_net, image):
    report = check_half(prepare(small_net, image))
    assert report.failures == ()
    assert 0 < report.outputs[0].relative_l2 < 5e-3

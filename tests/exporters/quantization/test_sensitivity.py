import math

import pytest
import torch
from torch import nn

from exporters.quantization import sensitivity
from exporters.quantization.layer_errors import round_activation, round_weight


def test_weights_are_rounded_to_127_steps_per_channel():
    # Channel 0 has the step 1.27 / 127 = 0.01, channel 1 the step 0.1.
    weight = torch.tensor([[1.27, 0.014], [12.7, 0.14]])
    torch.testing.assert_close(
        round_weight(weight, axis=0), torch.tensor([[1.27, 0.01], [12.7, 0.1]]), rtol=1e-6, atol=1e-6
    )


def test_activations_are_rounded_to_255_steps_with_zero_among_them():
    # From -1 to 1.55 the step is 0.01, and what is outside of the range is clipped.
    value = torch.tensor([-2.0, -0.996, 0.0, 0.004, 0.006, 9.0])
    rounded = round_activation(value, -1.0, 1.55)
    torch.testing.assert_close(rounded, torch.tensor([-1.0, -1.0, 0.0, 0.0, 0.01, 1.55]), rtol=1e-5, atol=1e-6)


def test_a_range_of_nothing_changes_nothing():
    value = torch.zeros(3)
    assert round_activation(value, 0.0, 0.0) is value


def test_the_layer_whose_inputs_are_spread_widest_is_the_most_sensitive():
    class Spread(nn.Module):
        """The second layer's inputs hold one value 1000 times larger than the others, whose steps are then too wide."""

        def __init__(self):
            super().__init__()
            self.even = nn.Linear(8, 8)
            self.spread = nn.Linear(9, 4)
            self.spread.weight.data[:, 8] = 0

        def forward(self, x):
            return self.spread(torch.cat([self.even(x).tanh(), torch.full_like(x[:, :1], 1000.0)], 1))

    torch.manual_seed(0)
    found = sensitivity(Spread(), torch.randn(1, 8), torch.randn(40, 8))
    assert [entry.layer for entry in found] == ["spread", "even"]
    assert found[0].sqnr_db < 20 < found[1].sqnr_db


def test_a_layer_that_no_output_depends_on_costs_nothing():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.ignored = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x) + 0 * self.ignored(x)

    found = {entry.layer: entry for entry in sensitivity(Unused(), torch.randn(1, 4), torch.randn(20, 4))}
    assert found["ignored"].sqnr_db == math.inf
    assert found["ignored"].cosine == pytest.approx(1.0)
    assert math.isfinite(found["used"].sqnr_db)


def test_the_function_is_not_hidden_by_a_module_of_its_name():
    import exporters.quantization.search  # loads every module of the package that the search needs

    assert callable(exporters.quantization.sensitivity)

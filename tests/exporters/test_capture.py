import pytest
import torch
from torch import nn

from exporters.capture import capture
from exporters.errors import CaptureError
from exporters.network import prepare
from exporters.signature import DimensionRange

BATCH = DimensionRange(1, 6)


class ValueDependent(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class FixedBatch(nn.Module):
    """Works eagerly at any size that 4 divides, as code with a number where a size belongs does."""

    def forward(self, x):
        return x.reshape(4, -1).sum() + x if x.shape[0] == 4 else x.sum() + x


def test_a_static_program_computes_what_the_network_does(small_net, image):
    network = prepare(small_net, image)
    program = capture(network)
    torch.testing.assert_close(program.module()(image)[0], network.module(image)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_a_dynamic_program_runs_over_the_whole_range(small_net, image, size):
    network = prepare(small_net, image, batch=BATCH)
    images = torch.randn(size, 3, 8, 8)
    output = capture(network).module()(images)[0]
    torch.testing.assert_close(output, network.module(images)[0], rtol=0, atol=1e-6)


def test_control_flow_on_values_is_refused_with_the_cure():
    with pytest.raises(CaptureError, match=r"ValueDependent raised .*Take Python control flow"):
        capture(prepare(ValueDependent(), torch.ones(1, 2)))


def test_a_batch_size_written_as_a_number_is_refused():
    with pytest.raises(CaptureError, match=r"FixedBatch raised .*batch"):
        capture(prepare(FixedBatch(), torch.ones(4, 2), batch=BATCH))

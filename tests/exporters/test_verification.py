"""A network that enlarges rounding errors is held to what PyTorch's own float32 keeps, others to the usual bounds."""

import pytest
import torch
from torch import Tensor, nn

import exporters
from exporters.onnx import OnnxExporter
from exporters.parity import TOLERANCES


class Cancelling(nn.Module):
    """Small differences of large values; sums in another order change them more, the larger the values."""

    def __init__(self, offset: float):
        super().__init__()
        self.linear = nn.Linear(512, 64)
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        large = self.linear(x) + self.offset
        return large - large.mean(-1, keepdim=True)


@pytest.fixture
def make_network():
    torch.manual_seed(0)
    return Cancelling


def inputs() -> Tensor:
    return torch.randn(4, 512, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_right_file_is_held_to_four_times_the_rounding_of_pytorch(make_network, tmp_path, runtime):
    path = tmp_path / {"onnx": "a.onnx", "openvino": "a.xml"}[runtime]
    network = make_network(offset=1000.0)
    artifact = exporters.export(network, inputs(), to=runtime, path=path)
    with torch.no_grad():
        exact = network.double()(inputs().double())
        own = (network.float()(inputs()) - exact).norm() / exact.norm()
    assert artifact.parity.outputs[0].relative_l2 > 1e-5
    # The inputs compared are others than these, drawn from their distribution.
    assert artifact.parity.tolerance.relative_l2 == pytest.approx(4 * float(own), rel=0.3)
    assert "PyTorch's own fp32 outputs are" in artifact.notes[-1]


@pytest.mark.parametrize(("runtime", "precision"), [("coreml", "fp16"), ("onnx", "fp16"), ("coreai", "bf16")])
def test_a_right_file_in_half_precision_is_held_to_twice_the_rounding_of_pytorch(
    make_network, tmp_path, runtime, precision
):
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    network = make_network(offset={"fp16": 20.0, "bf16": 10.0}[precision])
    path = tmp_path / {"onnx": "a.onnx", "coreml": "a.mlpackage", "coreai": "a.aimodel"}[runtime]
    artifact = exporters.export(network, inputs(), to=runtime, path=path, precision=precision)
    with torch.no_grad():
        exact = network.double()(inputs().double())
        own = (network.to(dtype)(inputs().to(dtype)).double() - exact).norm() / exact.norm()
    assert TOLERANCES[precision].relative_l2 < artifact.parity.tolerance.relative_l2
    assert artifact.parity.tolerance.relative_l2 == pytest.approx(2 * float(own), rel=0.3)
    assert f"PyTorch's own {precision} outputs are" in artifact.notes[-1]


def test_float16_that_overflows_in_pytorch_excuses_nothing(make_network, tmp_path):
    with pytest.raises(exporters.ParityError, match=r"relative L2 at most 0\.005"):
        exporters.export(make_network(offset=1e5), inputs(), to="onnx", path=tmp_path / "a.onnx", precision="fp16")


def test_a_wrong_file_of_such_a_network_is_an_error(make_network, tmp_path, broken_exporter):
    exporter = broken_exporter(exporter=OnnxExporter(), mistake=shrink_the_weight)
    with pytest.raises(exporters.ParityError, match=r"relative L2 at most 1e-05.*\n.*\n.*`linear`"):
        exporters.export(make_network(offset=1000.0), inputs(), to=exporter, path=tmp_path / "a.onnx")


def test_outputs_that_rounding_decides_are_an_error(make_network, tmp_path):
    with pytest.raises(exporters.ParityError, match="relative L2 at most 1e-05"):
        exporters.export(make_network(offset=1e6), inputs(), to="onnx", path=tmp_path / "a.onnx")


def test_a_tolerance_that_was_given_is_not_widened(make_network, tmp_path):
    exact = exporters.Tolerance(relative_l2=2e-6)
    with pytest.raises(exporters.ParityError, match="relative L2 at most 2e-06"):
        exporters.export(make_network(offset=1000.0), inputs(), to="onnx", path=tmp_path / "a.onnx", tolerance=exact)


def shrink_the_weight(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        network.linear.weight.mul_(0.999)
    return network

"""A failed check names the layer that a faulty conversion got wrong."""

import onnx
import openvino
import pytest
import torch
from torch import nn

import exporters
from exporters.bisection import explain, locate
from exporters.executorch import ExecuTorchExporter
from exporters.exporter import Request
from exporters.network import prepare, with_taps
from exporters.onnx import OnnxExporter
from exporters.parity import TOLERANCES
from exporters.runtimes import EXPORTERS, import_runtime

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:openvino")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", sorted(set(EXPORTERS) - {"tensorrt"}))
def test_the_layer_that_was_converted_wrongly_is_named(
    small_net, image, tmp_path, broken_exporter, blamed_mistake, runtime
):
    mistake, layer = blamed_mistake
    exporter = broken_exporter(exporter=import_runtime(EXPORTERS, runtime)(), mistake=mistake)
    path = tmp_path / f"student{exporter.suffix}"
    with pytest.raises(exporters.ParityError, match=rf"first divergence in layer {layer} \(.*\), relative L2 \d"):
        exporters.export(small_net, torch.cat([image, image]), to=exporter, path=path)
    assert list(tmp_path.iterdir()) == []


def change_onnx_weight(path):
    model = onnx.load(path)
    (weight,) = (tensor for tensor in model.graph.initializer if list(tensor.dims) == [5, 4])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1, 2] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


def change_openvino_weight(path):
    """The head's weight in the file of weights, found by its values."""
    model = openvino.Core().read_model(path)
    (constant,) = (op for op in model.get_ops() if op.get_type_name() == "Constant" and list(op.shape) == [5, 4])
    old = constant.data.tobytes()
    new = constant.data.copy()
    new[1, 2] += 0.5
    del model, constant
    weights = path.with_suffix(".bin")
    content = weights.read_bytes()
    assert content.count(old) == 1
    weights.write_bytes(content.replace(old, new.tobytes()))


@pytest.mark.parametrize(("runtime", "damage"), [("onnx", change_onnx_weight), ("openvino", change_openvino_weight)])
def test_a_weight_changed_in_the_written_file_is_found(small_net, image, tmp_path, broken_exporter, runtime, damage):
    exporter = broken_exporter(exporter=import_runtime(EXPORTERS, runtime)(), damage=damage)
    with pytest.raises(exporters.ParityError, match=r"first divergence in layer `head`.*; last agreeing `norm`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / f"student{exporter.suffix}")


def test_the_first_of_several_wrong_layers_is_named(image, tmp_path, broken_exporter):
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(4)))

    def break_two(module):
        for block in (1, 3):
            module[block][0].bias.data += 0.5
        return module

    exporter = broken_exporter(exporter=OnnxExporter(), mistake=break_two)
    with pytest.raises(exporters.ParityError, match=r"first divergence in layer `1\.0`.*; last agreeing `0"):
        exporters.export(net, image, to=exporter, path=tmp_path / "n.onnx")


def test_a_wrong_operation_between_layers_is_named_by_the_module_that_does_it(tmp_path, broken_exporter):
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.scale = 1.0

        def forward(self, x):
            return x + self.scale * self.inner(x)

    def rescale(module):
        module[0].scale = 0.9
        return module

    exporter = broken_exporter(exporter=OnnxExporter(), mistake=rescale)
    with pytest.raises(
        exporters.ParityError, match=r"first divergence in layer `0` \(.*\).*; last agreeing `0\.inner`"
    ):
        exporters.export(
            nn.Sequential(Residual(), nn.Linear(4, 2)), torch.randn(1, 4), to=exporter, path=tmp_path / "n.onnx"
        )


def test_taps_follow_the_outputs_in_the_order_of_the_calls(small_net, image):
    network = prepare(small_net, image)
    tapped = with_taps(network, ["head", "norm", "convolution"])
    assert [spec.name for spec in tapped.signature.outputs] == ["output", "tap_0_2", "tap_1_1", "tap_2_0"]
    output, convolution, norm, head = tapped.module(image)
    torch.testing.assert_close(convolution, network.module.module.convolution(image), rtol=0, atol=0)
    torch.testing.assert_close(norm, network.module.module.norm(convolution), rtol=0, atol=0)
    torch.testing.assert_close(head, output, rtol=0, atol=0)
    assert not any(module._forward_hooks for module in network.module.modules())


def test_a_value_that_is_overwritten_later_is_tapped_before(image):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(inplace=True))
    tapped = with_taps(prepare(net, image), ["0"])
    assert (tapped.module(image)[1] < 0).any()


def test_a_file_that_is_right_has_no_divergence(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="onnx", path=tmp_path / "n.onnx")
    found = locate(OnnxExporter(), artifact, prepare(small_net, image), Request(), tolerance=TOLERANCES["fp32"])
    assert found is None


def test_an_error_of_names_or_shapes_is_left_as_it_is(small_net, image):
    error = exporters.ParityError("outputs must be named ['a'], got ['b'].")
    assert explain(error, None, None, None, None, tolerance=TOLERANCES["fp32"]) is error


def test_what_stopped_the_search_is_said(small_net, image, tmp_path, broken_exporter):
    converted = []

    def convert_once(module):
        if converted:
            raise exporters.ConversionError("`model` must be converted once.")
        converted.append(module)
        module.convolution.weight.data *= 1.1
        return module

    # ONNX files have the convolution and its norm joined, so that telling them apart takes another conversion.
    exporter = broken_exporter(exporter=OnnxExporter(), mistake=convert_once)
    with pytest.raises(exporters.ParityError, match=r"could not be found: `model` must be converted once\."):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.onnx")


@pytest.mark.slow
def test_layers_that_are_right_alone_and_wrong_together_are_said_to_be_so(small_net, image, tmp_path, broken_exporter):
    converted = []

    def wrong_without_taps(module):
        if not converted:
            module.head.weight.data *= 1.1
        converted.append(module)
        return module

    exporter = broken_exporter(exporter=ExecuTorchExporter(), mistake=wrong_without_taps)
    with pytest.raises(exporters.ParityError, match="every layer agrees where its output is taken out"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte")


@pytest.mark.slow
def test_int8_names_where_the_error_exceeds_the_tolerance(small_net, tmp_path):
    images = torch.randn(20, 3, 8, 8)
    options = {"precision": "int8", "calibration": images, "tolerance": exporters.Tolerance(cosine=0.9999999)}
    with pytest.raises(exporters.ParityError, match=r"first divergence in layer .*`(convolution|norm|head)`"):
        exporters.export(small_net, images[:1], to="onnx", path=tmp_path / "n.onnx", **options)

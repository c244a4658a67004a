"""An fp32 export computes the operators that the plain converter makes, so it cannot be slower."""

from collections import Counter

import onnx
import pytest
import timm
import torch

import exporters
from exporters.quiet import errors_only, no_telemetry

with no_telemetry():
    import openvino


@pytest.fixture(scope="module", params=["convolutional", "attending"])
def net(request):
    torch.manual_seed(0)
    if request.param == "convolutional":
        return timm.create_model("lcnet_035", in_chans=3, num_classes=5).eval()
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=16, depth=1, embed_dim=32, num_heads=2, num_classes=5
    ).eval()


@pytest.fixture(scope="module")
def image():
    return torch.randn(1, 3, 32, 32)


@pytest.mark.slow
def test_onnx_has_the_operators_of_torch_onnx_export(net, image, tmp_path):
    exporters.export(net, image, to="onnx", path=tmp_path / "n.onnx")
    with errors_only():
        plain = torch.onnx.export(torch.export.export(net, (image,)), dynamo=True, verbose=False).model_proto
    ours = onnx.load(tmp_path / "n.onnx")
    assert Counter(node.op_type for node in ours.graph.node) == Counter(node.op_type for node in plain.graph.node)


@pytest.mark.slow
def test_openvino_has_the_operations_of_convert_model(net, image, tmp_path):
    exporters.export(net, image, to="openvino", path=tmp_path / "n.xml")
    with errors_only("root"):
        plain = openvino.convert_model(torch.export.export(net, (image,)), input=[list(image.shape)])
    ours = openvino.Core().read_model(tmp_path / "n.xml")
    assert Counter(node.get_type_name() for node in ours.get_ops()) == Counter(
        node.get_type_name() for node in plain.get_ops()
    )

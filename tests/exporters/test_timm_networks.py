"""Four networks of different families at full size, in every format."""

import pytest
import timm
import torch

import exporters

NAMES = ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnextv2_atto"]


@pytest.fixture(params=NAMES)
def network(request, randomise_batch_norm):
    torch.manual_seed(0)
    return randomise_batch_norm(timm.create_model(request.param, pretrained=False))


@pytest.mark.slow
@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_runs_within_1e_4_of_the_output_range(network, tmp_path, to, suffix):
    artifact = exporters.export(network, torch.randn(1, 3, 224, 224), to=to, path=tmp_path / f"student{suffix}")
    (output,) = artifact.parity.outputs
    assert output.max_abs_of_range < 1e-4
    assert output.relative_l2 < 1e-5
    assert output.nonfinite == 0


@pytest.mark.slow
def test_converts_to_core_ml_with_every_weight_found(network, tmp_path):
    path = tmp_path / "student.mlpackage"
    artifact = exporters.export(network, torch.randn(1, 3, 224, 224), to="coreml", path=path)
    found, total = (int(word) for word in artifact.notes[0].split()[:3:2])
    assert found == total
    assert total >= 42  # resnet18 has the fewest: 20 convolutions and a linear layer, each with weight and bias

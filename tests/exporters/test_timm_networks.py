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
@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml"), ("coreml", ".mlpackage")])
def test_runs_within_1e_4_of_the_output_range(network, tmp_path, to, suffix):
    artifact = exporters.export(network, torch.randn(1, 3, 224, 224), to=to, path=tmp_path / f"student{suffix}")
    (output,) = artifact.parity.outputs
    assert output.max_abs_of_range < 1e-4
    assert output.relative_l2 < 1e-5
    assert output.nonfinite == 0

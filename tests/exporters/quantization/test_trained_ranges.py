"""Networks that come with their ranges, after quantisation-aware training, in ONNX Runtime and OpenVINO."""

import copy

import pytest
import torch

import exporters
from exporters.quantization.fake import calibrate, prepare_qat


@pytest.fixture(scope="module")
def trained(small_cnn, images):
    net = copy.deepcopy(small_cnn)
    prepare_qat(net, images[:2])
    calibrate(net, [images])
    return net


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "file"), [("onnx", "n.onnx"), ("openvino", "n.xml")])
def test_the_ranges_are_kept_and_every_layer_is_computed_in_integers(trained, images, tmp_path, runtime, file):
    artifact = exporters.export(trained, images[:1], to=runtime, path=tmp_path / file, precision="int8")
    # Both round as PyTorch does; a value between two steps may go to either.
    assert artifact.parity.outputs[0].relative_l2 < 1e-2
    assert artifact.quantization.recipe == "quantisation-aware training"
    assert artifact.quantization.calibration is None
    assert sum(count for kind, count in artifact.audit.operators.items() if kind in ("int8", "uint8")) == 3
    # 8 * 1 * 9 + 8 * 8 * 9 + 5 * 8 weights.
    assert artifact.audit.weight_bytes["int8"] == 72 + 576 + 40


def test_calibration_data_are_not_needed_but_for_a_plain_network(small_cnn, images, tmp_path):
    with pytest.raises(exporters.InputError, match=r"`calibration` must be given for precision='int8'"):
        exporters.export(small_cnn, images[:1], to="onnx", path=tmp_path / "n.onnx", precision="int8")
    assert torch.is_tensor(images)

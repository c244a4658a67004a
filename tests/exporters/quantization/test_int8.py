"""Int8 files of ONNX Runtime and OpenVINO: what they compute, what they say of themselves, that they are repeatable."""

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.errors import ConversionError, InputError
from exporters.quantization import QuantizationOptions

RUNTIMES = {"onnx": "n.onnx", "openvino": "n.xml"}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request):
    return request.param


@pytest.fixture(scope="module")
def export(runtime, tmp_path_factory):
    def run(net, images, **options):
        path = tmp_path_factory.mktemp("int8") / RUNTIMES[runtime]
        return exporters.export(net, images[:1], to=runtime, path=path, precision="int8", calibration=images, **options)

    return run


@pytest.fixture(scope="module")
def cnn_file(export, small_cnn, images):
    return export(small_cnn, images, dynamic_batch=(1, 4))


@pytest.fixture(scope="module")
def vit_file(export, small_vit, images):
    return export(small_vit, images)


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.slow
def test_the_output_is_that_of_pytorch_to_a_cosine_of_99_percent(cnn_file, vit_file, images, small_cnn, small_vit):
    for artifact, net in ((cnn_file, small_cnn), (vit_file, small_vit)):
        session = exporters.load(artifact, threads=1)
        name = artifact.inputs[0].name
        outputs = np.concatenate([session.run({name: image[None].numpy()})["output"] for image in images])
        assert cosine(outputs, net(images).detach().numpy()) >= 0.99
        assert session.properties["active_precision"] == "int8"


@pytest.mark.slow
def test_integers_are_stored_and_computed(cnn_file):
    audit = cnn_file.audit
    # 8 * 1 * 9 + 8 * 8 * 9 + 5 * 8 weights.
    assert audit.weight_bytes["int8"] == 72 + 576 + 40
    assert sum(count for kind, count in audit.operators.items() if kind in ("int8", "uint8")) == 3
    assert audit.left_in_float == cnn_file.quantization.left_in_float == ()


@pytest.mark.slow
def test_at_least_two_recipes_are_tried_and_the_closest_is_taken(cnn_file, vit_file):
    for report in (cnn_file.quantization, vit_file.quantization):
        tried = [trial for trial in report.trials if trial.failure is None]
        assert len(tried) >= 2
        assert report.recipe == max(tried, key=lambda trial: trial.cosine).recipe
        assert report.calibration.count == 30


@pytest.mark.slow
def test_two_exports_have_equal_bytes(export, cnn_file, small_cnn, images):
    again = export(small_cnn, images, dynamic_batch=(1, 4))
    assert [file.sha256 for file in again.files] == [file.sha256 for file in cnn_file.files]


@pytest.mark.slow
def test_layers_asked_for_stay_in_float(export, small_cnn, images):
    artifact = export(small_cnn, images, quantization=QuantizationOptions(keep_float=("3",)))
    assert artifact.quantization.left_in_float == artifact.audit.left_in_float == ("3",)


def test_unknown_layers_and_recipes_are_refused_by_name(export, small_cnn, images):
    with pytest.raises(InputError, match=r"must name layers of the network, got 'nowhere'; it has \['0', '3', '7'\]"):
        export(small_cnn, images, quantization=QuantizationOptions(keep_float=("nowhere",)))
    with pytest.raises(InputError, match=r"`recipe` must be 'auto' or one of .*, got 'best'"):
        export(small_cnn, images, quantization=QuantizationOptions(recipe="best"))


def test_a_network_without_layers_to_quantise_is_refused(export):
    with pytest.raises(ConversionError, match=r"must have a convolution, linear layer or matrix product to quantise"):
        export(nn.ReLU(), torch.randn(30, 1, 16, 16))

"""Networks that round by themselves, exported without calibration: every runtime computes them in int8."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

import exporters
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """A stem whose ReLU two layers read, an addition of two branches, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.short = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        stem = self.stem(image)
        return self.head((self.inner(stem) + self.short(stem)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def images():
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def residual(images, randomise_batch_norm):
    network = randomise_batch_norm(Residual()).eval()
    prepare_qat(network, images)
    calibrate(network, [images])
    return network


@pytest.fixture(params=["onnx", "openvino", "executorch"])
def target(request):
    return request.param


def suffix(target):
    return {"onnx": ".onnx", "openvino": ".xml", "executorch": ".pte"}[target]


def agrees(artifact, network, images):
    """Share of the images whose class the file finds as PyTorch does, and the cosine of the scores."""
    (found,) = exporters.load(artifact).run({artifact.inputs[0].name: images.numpy()}).values()
    expected = network(images).detach().numpy()
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    return (found.argmax(1) == expected.argmax(1)).mean(), cosine


def test_every_convolution_and_linear_layer_is_computed_in_int8(residual, images, target, tmp_path):
    artifact = exporters.export(
        residual, images, to=target, path=tmp_path / f"network{suffix(target)}", precision="int8"
    )
    assert artifact.audit.active("int8") == 1.0
    assert sum(artifact.audit.operators.values()) == 4
    assert artifact.audit.weight_bytes["int8"] >= 3 * 8 * 9 + 8 * 8 * 9 + 8 * 8 + 8 * 5
    assert artifact.quantization.calibration is None
    agreement, cosine = agrees(artifact, residual, images)
    assert agreement >= 0.95
    assert cosine > 0.999


def test_the_linear_layers_of_a_transformer_are_computed_in_int8_and_its_attention_is_not(images, target, tmp_path):
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes).eval()
    prepare_qat(network, images)
    calibrate(network, [images])
    artifact = exporters.export(
        network, images, to=target, path=tmp_path / f"network{suffix(target)}", precision="int8"
    )
    # Patch embedding, queries with keys and values, projection, two of the MLP, head.
    assert sum(artifact.audit.operators.get(name, 0) for name in ("int8", "uint8")) == 6
    assert artifact.audit.left_in_float == ("blocks.0.attn",)
    assert agrees(artifact, network, images)[1] > 0.999


def test_weights_of_few_bits_and_learned_scales_arrive_exactly(images, tmp_path, randomise_batch_norm):
    network = randomise_batch_norm(Residual()).eval()
    prepare_qat(network, images, FakeQuantization(weight_bits=3, learned_scales=True, activations="symmetric"))
    calibrate(network, [images])
    artifact = exporters.export(network, images, to="onnx", path=tmp_path / "network.onnx", precision="int8")
    assert artifact.audit.active("int8") == 1.0
    assert agrees(artifact, network, images)[1] > 0.999


def test_a_dynamic_batch_is_kept(residual, images, tmp_path):
    artifact = exporters.export(
        residual, images, to="onnx", path=tmp_path / "network.onnx", precision="int8", dynamic_batch=(1, 64)
    )
    session = exporters.load(artifact)
    one = session.run({artifact.inputs[0].name: images[:1].numpy()})
    many = session.run({artifact.inputs[0].name: images.numpy()})
    np.testing.assert_allclose(one["output"][0], many["output"][0], rtol=1e-5, atol=1e-6)


class ReadsItsWeight(nn.Module):
    """A patch embedding as transformers' CLIP has it: the image is brought to the type of the weight."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 4, 4, bias=False), nn.Linear(8, 5)

    def forward(self, image):
        assert self.head.weight.shape == (5, 8)
        return self.head(self.patches(image.to(self.patches.weight.dtype)).mean((2, 3)))


def test_a_network_may_read_the_type_and_shape_of_a_weight(images, target, tmp_path):
    network = ReadsItsWeight()
    prepare_qat(network, images)
    calibrate(network, [images])
    artifact = exporters.export(
        network, images, to=target, path=tmp_path / f"network{suffix(target)}", precision="int8"
    )
    assert artifact.audit.active("int8") == 1.0
    assert artifact.audit.weight_bytes["int8"] == 8 * 3 * 16 + 5 * 8
    assert agrees(artifact, network, images)[1] > 0.999

import json

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.coreml import CoreMLExporter
from exporters.errors import ConversionError, ParityError


def read_back(path):
    import coremltools

    return coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()


@pytest.mark.parametrize("dynamic_batch", [False, (2, 6)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_structure_and_weights_are_those_of_the_network(small_net, image, tmp_path, precision, dynamic_batch):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(
        small_net, image, to="coreml", path=path, precision=precision, dynamic_batch=dynamic_batch
    )
    # Convolution and batch norm become one weight and one bias; the linear layer keeps its two.
    assert artifact.notes[0].startswith("4 of 4 weights of the network were found")
    assert artifact.verified_on == "structure and weights; not executed"
    assert artifact.parity is None
    assert exporters.Artifact.read(path) == artifact
    description = read_back(path).description
    array = description.input[0].type.multiArrayType
    assert [feature.name for feature in (*description.input, *description.output)] == ["image", "output"]
    ranges = [(size.lowerBound, size.upperBound) for size in array.shapeRange.sizeRanges]
    assert (ranges or list(array.shape))[0] == (dynamic_batch or 1)


def test_the_package_describes_itself(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(small_net, image, to="coreml", path=path, metadata={"labels": "cat,dog"})
    assert read_back(path).description.metadata.userDefined["labels"] == "cat,dog"
    assert read_back(path).specificationVersion == 8  # iOS 17
    assert all(record.name.startswith("n.mlpackage/") for record in artifact.files)
    assert json.loads(artifact.manifest_path.read_text())["verified_on"] == artifact.verified_on


def test_an_earlier_package_is_replaced(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    first = exporters.export(small_net, image, to="coreml", path=path)
    small_net.head.bias.data += 1
    second = exporters.export(small_net, image, to="coreml", path=path)
    assert exporters.Artifact.read(path) == second
    assert first.sha256 != second.sha256


def test_fp16_halves_the_weights(tmp_path):
    model, example = nn.Linear(256, 256), torch.randn(1, 256)
    sizes = [
        (exporters.export(model, example, to="coreml", path=tmp_path / "n.mlpackage", precision=precision)).size_bytes
        for precision in ("fp32", "fp16")
    ]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)


def test_64_bit_integers_become_32_bit(tmp_path):
    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(9, 4)

        def forward(self, tokens):
            return self.embedding(tokens)

    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(Lookup(), torch.arange(5)[None], to="coreml", path=path)
    assert [spec.dtype for spec in (*artifact.inputs, *artifact.outputs)] == ["int32", "float32"]


def test_an_operator_that_coremltools_lacks_is_decomposed(tmp_path):
    class ScaledSum(nn.Module):
        def forward(self, x, y):
            return torch.addcmul(x, x, y, value=2.0)

    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(ScaledSum(), (torch.randn(1, 4), torch.randn(1, 4)), to="coreml", path=path)
    assert [spec.name for spec in artifact.inputs] == ["x", "y"]


def test_an_operator_that_cannot_be_converted_is_named(tmp_path):
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    with pytest.raises(ConversionError, match=r"coremltools raised .*det"):
        exporters.export(Determinant(), torch.randn(1, 3, 3), to="coreml", path=tmp_path / "n.mlpackage")
    assert list(tmp_path.iterdir()) == []


class ScaledConvolution(nn.Module):
    """The converter folds the factor into the kernel."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.gamma = nn.Parameter(torch.tensor([0.5, -2.0, 3.0, 0.1]).reshape(4, 1, 1))

    def forward(self, image):
        return self.convolution(image) * self.gamma


def test_a_factor_folded_into_a_kernel_is_allowed_for(image, tmp_path):
    artifact = exporters.export(ScaledConvolution(), image, to="coreml", path=tmp_path / "n.mlpackage")
    # The kernel is found up to its factor; the factor itself and the bias, multiplied by it, are not.
    assert artifact.notes[0].startswith("1 of 3 weights of the network were found")
    assert artifact.notes[0].endswith("the converter may have merged the others into their neighbours.")


def test_a_kernel_with_swapped_axes_is_not_taken_for_a_scaled_one(image, tmp_path, broken_exporter):
    exporter = broken_exporter(exporter=CoreMLExporter(), mistake=swap_kernel_axes)
    with pytest.raises(ParityError, match=r"1 of 3 are not in it: convolution\.weight"):
        exporters.export(ScaledConvolution(), image, to=exporter, path=tmp_path / "n.mlpackage")


def change_head(module):
    module.head.weight.data[1, 2] += 0.01
    return module


def swap_kernel_axes(module):
    module.convolution.weight.data = module.convolution.weight.data.transpose(2, 3).contiguous()
    return module


def drop_statistics(module):
    module.norm.reset_running_stats()
    return module


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("mistake", "weight"),
    [
        (change_head, "module.head.weight"),
        (swap_kernel_axes, "module.convolution.weight"),
        (drop_statistics, "module.convolution.weight"),
    ],
)
def test_a_faulty_conversion_is_caught_and_the_weight_named(
    small_net, image, tmp_path, broken_exporter, mistake, weight, precision
):
    exporter = broken_exporter(exporter=CoreMLExporter(), mistake=mistake)
    with pytest.raises(ParityError, match=weight.removeprefix("module.")):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage", precision=precision)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_changed_in_the_package_is_caught(small_net, image, tmp_path, broken_exporter):
    def damage(path):
        file = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
        content = np.fromfile(file, np.float32)
        # Convolution kernels are 108 of the values; blobs begin at multiples of 64 bytes behind a header.
        kernel = np.flatnonzero(np.abs(content) > 1e-3)[50]
        content[kernel] += 0.5
        content.tofile(file)

    exporter = broken_exporter(exporter=CoreMLExporter(), damage=damage)
    with pytest.raises(ParityError, match=r"1 of 4 are not in it: convolution\.weight"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage")


def test_a_dropped_layer_is_caught(small_net, image, tmp_path, broken_exporter):
    def skip(module):
        module.convolution = nn.Identity()
        module.norm = nn.AvgPool2d(3)
        module.head = nn.Linear(3, 5)
        return module

    with pytest.raises(ParityError, match="at least 1 layers of kind `conv`, got 0"):
        exporters.export(
            small_net, image, to=broken_exporter(exporter=CoreMLExporter(), mistake=skip), path=tmp_path / "n.mlpackage"
        )


def test_swapped_axes_of_the_input_are_caught(small_net, tmp_path, broken_exporter):
    class Channelslast(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, image):
            return self.module(image).transpose(0, 1)

    exporter = broken_exporter(exporter=CoreMLExporter(), mistake=Channelslast)
    with pytest.raises(ConversionError, match="output `output` of the file must be float32 of shape"):
        exporters.export(small_net, torch.randn(1, 3, 8, 6), to=exporter, path=tmp_path / "n.mlpackage")


def test_an_overflow_in_float16_is_caught(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[0].weight.data *= 1e4
    model[1].weight.data /= 1e4
    with pytest.raises(ParityError, match=r"[1-9][0-9]* non-finite"):
        exporters.export(model, 1000 * torch.randn(8, 4), to="coreml", path=tmp_path / "n.mlpackage", precision="fp16")


def test_a_type_that_core_ml_lacks_is_named(tmp_path):
    class Mask(nn.Module):
        def forward(self, keep):
            return keep.float()

    with pytest.raises(ConversionError, match="`keep` must be float32, int32 or int64 for Core ML, got bool"):
        exporters.export(Mask(), torch.ones(1, 2, dtype=torch.bool), to="coreml", path=tmp_path / "n.mlpackage")


def test_running_a_package_here_is_refused_with_a_way_out(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="coreml", path=tmp_path / "n.mlpackage")
    with pytest.raises(exporters.PlatformError, match=r"n\.mlpackage on linux: Core ML runs on macOS and iOS only"):
        exporters.load(artifact)


def test_an_unknown_deployment_target_is_refused():
    with pytest.raises(ValueError, match="one of 'iOS16', 'iOS17', 'iOS18', 'iOS26', got 'iOS12'"):
        CoreMLExporter(minimum_deployment_target="iOS12")

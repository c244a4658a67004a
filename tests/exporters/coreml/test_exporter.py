import json

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.coreml import CoreMLExporter
from exporters.errors import ConversionError, ParityError
from exporters.mil.package import read_package
from exporters.signature import DimensionRange, TensorSpec
from exporters.spec import ExportSpec


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-6), ("fp16", 2e-3)])
def test_the_saved_program_computes_what_the_network_computes(small_net, image, tmp_path, precision, error):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(small_net, image, to="coreml", path=path, precision=precision)
    (output,) = artifact.parity.outputs
    assert output.relative_l2 < error
    assert artifact.verified_on.endswith("not run by Core ML")
    # One convolution into which the batch norm was folded, and one linear layer.
    assert artifact.audit.operators == {{"fp32": "float32", "fp16": "float16"}[precision]: 2}
    assert exporters.Artifact.read(path).to_json() == artifact.to_json()


def test_a_dynamic_batch_is_checked_at_its_ends_and_between(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(small_net, image, to="coreml", path=path, dynamic_batch=(2, 6))
    assert {2, 5, 6} <= set(artifact.parity.batch_sizes)
    assert read_package(path).inputs[0].shape[0] == DimensionRange(2, 6)


def test_the_package_describes_itself(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(small_net, image, to="coreml", path=path, metadata={"labels": "cat,dog"})
    specification = read_package(path).specification
    assert specification.description.metadata.userDefined["labels"] == "cat,dog"
    assert specification.specificationVersion == 8  # iOS 17
    assert all(record.name.startswith("n.mlpackage/") for record in artifact.files)
    assert json.loads(artifact.manifest_path.read_text())["details"]["compute_units"] == "ALL"


@pytest.mark.parametrize("options", [{}, {"dim": -1}, {"dim": 2, "eps": 0.5}])
def test_cosine_similarity_may_leave_its_arguments_out(image, tmp_path, options):
    class Similarity(nn.Module):
        def forward(self, x):
            return nn.functional.cosine_similarity(x[:, 1:], x[:, :-1], **options)

    artifact = exporters.export(Similarity(), image, to="coreml", path=tmp_path / "n.mlpackage")
    (output,) = artifact.parity.outputs
    assert output.relative_l2 < 1e-6


@pytest.mark.parametrize("affine", [True, False])
def test_groups_are_normalised_in_a_batch_of_any_size(image, tmp_path, affine):
    norm = nn.GroupNorm(2, 8, affine=affine)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    net = nn.Sequential(nn.Conv2d(image.shape[1], 8, 3), norm).eval()
    artifact = exporters.export(net, image, to="coreml", path=tmp_path / "n.mlpackage", dynamic_batch=(1, 4))
    assert {1, 4} <= set(artifact.parity.batch_sizes)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


@pytest.mark.parametrize("affine", [True, False])
def test_channels_are_normalised_over_any_length_in_a_batch_of_any_size(tmp_path, affine):
    net = nn.Sequential(nn.Conv1d(1, 8, 10, stride=5), nn.GroupNorm(8, 8, affine=affine)).eval()
    for parameter in net[1].parameters():
        nn.init.uniform_(parameter)
    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("input", ("batch", 1, "time"), "float32", value_range=(-1.0, 1.0)),),
        dimensions={"batch": exporters.DimensionRange(1, 3), "time": exporters.DimensionRange(40, 200)},
    )
    artifact = exporters.export(net, spec, to="coreml", path=tmp_path / "n.mlpackage")
    assert not any("torch.jit.trace" in note for note in artifact.notes)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_a_scale_and_a_shift_are_exact(image, tmp_path):
    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.shift = (nn.Parameter(torch.rand(3, 1, 1)) for _ in range(2))

        def forward(self, x):
            return x * self.scale + self.shift

    artifact = exporters.export(Affine(), image, to="coreml", path=tmp_path / "n.mlpackage")
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_both_kinds_of_gelu_are_told_apart(image, tmp_path, approximate):
    net = nn.GELU(approximate)
    artifact = exporters.export(net, 3 * image, to="coreml", path=tmp_path / "n.mlpackage")
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_an_example_may_lie_in_any_order_in_memory(small_net, image, tmp_path):
    example = image.to(memory_format=torch.channels_last)
    artifact = exporters.export(small_net, example, to="coreml", path=tmp_path / "n.mlpackage")
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_a_mask_has_a_byte_for_each_truth_value(tmp_path):
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(6, 6, dtype=torch.bool).tril())

        def forward(self, x):
            return torch.where(self.mask, x @ x.transpose(1, 2), torch.tensor(-1.0))

    artifact = exporters.export(Causal(), torch.randn(1, 6, 4), to="coreml", path=tmp_path / "n.mlpackage")
    assert artifact.audit.weight_bytes["bool"] == 36


def test_an_earlier_package_is_replaced(small_net, image, tmp_path):
    path = tmp_path / "n.mlpackage"
    first = exporters.export(small_net, image, to="coreml", path=path)
    small_net.head.bias.data += 1
    second = exporters.export(small_net, image, to="coreml", path=path)
    assert exporters.Artifact.read(path).sha256 == second.sha256
    assert first.sha256 != second.sha256


def test_two_exports_of_one_network_have_the_same_bytes(small_net, image, tmp_path):
    hashes = [
        exporters.export(small_net, image, to="coreml", path=tmp_path / "n.mlpackage", precision="fp16").sha256
        for _ in range(2)
    ]
    assert hashes[0] == hashes[1]


class Lookup(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 4)

    def forward(self, tokens):
        return self.embedding(tokens), tokens.argmax(-1)


def test_64_bit_integers_become_32_bit(tmp_path):
    artifact = exporters.export(Lookup(), torch.arange(5)[None], to="coreml", path=tmp_path / "n.mlpackage")
    assert [spec.dtype for spec in (*artifact.inputs, *artifact.outputs)] == ["int32", "float32", "int32"]
    assert all(output.max_abs == 0 for output in artifact.parity.outputs)


class ScaledSum(nn.Module):
    def forward(self, x, y):
        return torch.addcmul(x, x, y, value=2.0)


def test_an_operator_that_coremltools_lacks_is_decomposed(tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(ScaledSum(), (torch.randn(1, 4), torch.randn(1, 4)), to="coreml", path=path)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


class Determinant(nn.Module):
    def forward(self, x):
        return torch.linalg.det(x)


def test_an_operator_that_cannot_be_converted_is_named(tmp_path):
    with pytest.raises(ConversionError, match=r"coremltools raised .*det"):
        exporters.export(Determinant(), torch.randn(1, 3, 3), to="coreml", path=tmp_path / "n.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_pytorch_cannot_decompose_is_refused(small_net, image, tmp_path, monkeypatch):
    def undone(*_):
        raise ValueError("Cannot view a tensor with shape (2, 3)")

    monkeypatch.setattr("torch.export.ExportedProgram.run_decompositions", undone)
    with pytest.raises(ConversionError, match=r"operators of coremltools: ValueError: Cannot view a tensor"):
        exporters.export(small_net, image, to="coreml", path=tmp_path / "n.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_the_converter_is_caught(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=CoreMLExporter(), mistake=mistake)
    with pytest.raises(ParityError, match=r"`output`: .*relative L2"):
        exporters.export(small_net, torch.randn(1, 3, 8, 8), to=exporter, path=tmp_path / "n.mlpackage")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_changed_in_the_package_is_caught(small_net, image, tmp_path, broken_exporter):
    def damage(path):
        file = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
        content = np.fromfile(file, np.float32)
        # Convolution kernels are 108 of the values; blobs begin at multiples of 64 bytes behind a header.
        content[np.flatnonzero(np.abs(content) > 1e-3)[50]] += 0.5
        content.tofile(file)

    exporter = broken_exporter(exporter=CoreMLExporter(), damage=damage)
    with pytest.raises(ParityError, match=r"`output`: .*relative L2"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage")


def test_another_shape_of_an_output_is_caught(small_net, image, tmp_path, broken_exporter):
    class Transposed(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, image):
            return self.module(image).transpose(0, 1)

    exporter = broken_exporter(exporter=CoreMLExporter(), mistake=Transposed)
    with pytest.raises(ConversionError, match="output `output` of the file must be float32 of shape"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage")


class Overflowing(nn.Module):
    """The values between both layers are beyond float16."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 4, bias=False)
        self.down = nn.Linear(4, 4, bias=False)
        self.up.weight.data *= 1e3
        self.down.weight.data /= 1e3

    def forward(self, x):
        return self.down(self.up(x))


def test_an_overflow_names_the_module_and_the_option_that_cures_it(tmp_path):
    path, inputs = tmp_path / "n.mlpackage", 1e3 * torch.randn(8, 4)
    with pytest.raises(ParityError, match=r"in `up`: it is beyond float16; use CoreMLExporter\(keep_float32=\('up',"):
        exporters.export(Overflowing(), inputs, to="coreml", path=path, precision="fp16")
    cured = CoreMLExporter(keep_float32=("up", "down"))
    artifact = exporters.export(Overflowing(), inputs, to=cured, path=path, precision="fp16")
    assert artifact.audit.left_in_float == ("up", "down")
    assert artifact.parity.outputs[0].nonfinite == 0


def test_an_input_beyond_float16_names_what_reads_it(tmp_path):
    with pytest.raises(ParityError, match=r"read by `up`: it is beyond float16; use .*keep_float32=\('up',"):
        exporters.export(
            Overflowing(), 1e6 * torch.randn(8, 4), to="coreml", path=tmp_path / "n.mlpackage", precision="fp16"
        )


def test_what_is_kept_in_float32_must_be_in_the_network(small_net, image, tmp_path):
    exporter = CoreMLExporter(keep_float32=("norm", "neck"))
    with pytest.raises(ConversionError, match=r"`keep_float32` must name .* got \['neck'\]"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.mlpackage", precision="fp16")


class Mask(nn.Module):
    def forward(self, keep):
        return keep.float()


def test_a_type_that_core_ml_lacks_is_named(tmp_path):
    with pytest.raises(ConversionError, match="`keep` must be float32, int32 or int64 for Core ML, got bool"):
        exporters.export(Mask(), torch.ones(1, 2, dtype=torch.bool), to="coreml", path=tmp_path / "n.mlpackage")


def test_an_unknown_deployment_target_is_refused():
    with pytest.raises(ValueError, match="one of 'iOS16', 'iOS17', 'iOS18', 'iOS26', got 'iOS12'"):
        CoreMLExporter(minimum_deployment_target="iOS12")


class Frames(nn.Module):
    """An encoder of audio: frames by convolution, then an average over time."""

    def __init__(self):
        super().__init__()
        self.frames = nn.Conv1d(1, 8, 20, stride=10)
        self.head = nn.Linear(8, 3)

    def forward(self, waveform):
        return self.head(self.frames(waveform[:, None]).relu().transpose(1, 2))


SAMPLES = ExportSpec(
    inputs=(TensorSpec("waveform", (1, "time"), "float32"),),
    dimensions={"time": DimensionRange(800, 2000, multiple=400)},
)


def test_a_range_of_lengths_is_read_back_and_checked(tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(Frames(), SAMPLES, to="coreml", path=path)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6
    assert read_package(path).inputs[0].shape == (1, DimensionRange(800, 2000))


def test_a_network_whose_capture_is_too_narrow_is_traced_which_is_said(tmp_path):
    # A single step of 400 is a size of 1 to torch.export, which takes it for a constant.
    spec = ExportSpec(inputs=SAMPLES.inputs, dimensions={"time": DimensionRange(400, 1200, multiple=400)})
    artifact = exporters.export(Frames(), spec, to="coreml", path=tmp_path / "n.mlpackage")
    assert artifact.notes[0].startswith("Converted through torch.jit.trace: dimension `time` of input `waveform` must")
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_lengths_can_be_enumerated_through_a_trace_which_is_said(tmp_path):
    path = tmp_path / "n.mlpackage"
    artifact = exporters.export(Frames(), SAMPLES, to=CoreMLExporter(sizes="enumerated"), path=path)
    assert read_package(path).sizes == {"waveform": ((1, 800), (1, 1200), (1, 1600), (1, 2000))}
    assert artifact.notes == ("Converted through torch.jit.trace: enumerated shapes need it",)
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_too_many_enumerated_lengths_are_refused(tmp_path):
    spec = ExportSpec(inputs=SAMPLES.inputs, dimensions={"time": DimensionRange(400, 1600)})
    with pytest.raises(ConversionError, match="at most 128 shapes, got 1201 for input `waveform`"):
        exporters.export(Frames(), spec, to=CoreMLExporter(sizes="enumerated"), path=tmp_path / "n.mlpackage")

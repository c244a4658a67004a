"""ExecuTorch: what is written, what its runtime computes from it, and what is refused."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import exporters
from exporters.errors import ConversionError, ParityError
from exporters.executorch import ExecuTorchExporter
from exporters.executorch.program import read_program
from exporters.sessions.executorch import Runtime

PIXELS = 8
LABELS = {"labels": "chat,été"}


class TokenNet(nn.Module):
    """A patch embedding, one block of attention, and a head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm(tokens)).reshape(image.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
        return self.head((tokens + mixed.transpose(1, 2).reshape(tokens.shape))[:, 0])


@pytest.fixture(scope="module")
def token_net():
    torch.manual_seed(0)
    return TokenNet()


@pytest.fixture(scope="module")
def token_file(token_net, tmp_path_factory):
    """The artifact that the tests of one file share; each conversion takes seconds."""
    path = tmp_path_factory.mktemp("executorch") / "n.pte"
    example = torch.randn(1, 3, PIXELS, PIXELS)
    return exporters.export(token_net, example, to="executorch", path=path, metadata=LABELS)


def relative_l2(output, expected):
    return np.linalg.norm(output - expected) / np.linalg.norm(expected)


def outputs(model, artifact, images):
    session = exporters.load(artifact.path, threads=1)
    return session.run({"image": images.numpy()})["output"], model.eval()(images).detach().numpy()


@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 5e-3)])
def test_runs_and_agrees(small_net, image, tmp_path, backend, precision, bound):
    artifact = exporters.export(
        small_net, image, to=ExecuTorchExporter(backend=backend), path=tmp_path / "n.pte", precision=precision
    )
    images = torch.randn(1, 3, PIXELS, PIXELS)
    assert relative_l2(*outputs(small_net, artifact, images)) <= bound
    numpy_name = {"fp32": "float32", "fp16": "float16"}[precision]
    assert artifact.audit.operators == {numpy_name: 2}
    assert artifact.verified_on == f"executorch {artifact.versions['executorch']} on CPU"


# 20 is beyond the batch of 16 from which PyTorch would choose other kernels, and so narrow the range.
@pytest.mark.parametrize("backend", ["xnnpack", "portable"])
def test_accepts_every_declared_batch_and_no_other(small_net, image, tmp_path, backend):
    artifact = exporters.export(
        small_net, image, to=ExecuTorchExporter(backend=backend), path=tmp_path / "n.pte", dynamic_batch=(1, 20)
    )
    for size in (1, 2, 15, 16, 19, 20):
        assert relative_l2(*outputs(small_net, artifact, torch.randn(size, 3, PIXELS, PIXELS))) <= 1e-5
    with pytest.raises(exporters.InputError, match=r"`batch` of input `image` must be 1 to 20, got 21"):
        outputs(small_net, artifact, torch.randn(21, 3, PIXELS, PIXELS))
    assert read_program(artifact.path).inputs == (("float32", (20, 3, PIXELS, PIXELS), True),)


@pytest.mark.slow
def test_accepts_dynamic_images_beyond_the_size_of_the_example(small_net, tmp_path):
    # 96 x 96 x 3 values are more than 20480, from where PyTorch would choose other kernels.
    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("image", (1, 3, "height", "width"), "float32"),),
        dimensions={"height": exporters.DimensionRange(8, 96), "width": exporters.DimensionRange(8, 96)},
    )
    artifact = exporters.export(small_net, spec, to="executorch", path=tmp_path / "n.pte")
    for height, width in ((8, 8), (96, 96), (31, 57)):
        assert relative_l2(*outputs(small_net, artifact, torch.randn(1, 3, height, width))) <= 1e-5


def test_a_transformer_is_one_partition(token_file):
    found = token_file.details["delegation"]
    assert found["partitions"] == 1
    assert found["outside"] == {}
    assert found["delegates"] == ["XnnpackBackend"]
    # Four products with weights: patches are a convolution; qkv, head, mean and variance of the norm are linear.
    assert (found["delegated"]["XNNConv2d"], found["delegated"]["XNNFullyConnected"]) == (1, 4)
    assert found["delegated"]["XNNBatchMatrixMultiply"] == 2
    assert found["planned_memory_bytes"] >= 4 * (3 * PIXELS * PIXELS + 5)
    assert token_file.notes == ()


def test_what_the_delegate_left_out_is_counted(image, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU(), nn.Conv2d(4, 4, 3))
    artifact = exporters.export(model, image, to="executorch", path=tmp_path / "n.pte")
    assert artifact.details["delegation"]["partitions"] == 2
    assert artifact.details["delegation"]["outside"] == {"aten::elu.out": 1}


@pytest.mark.slow
def test_a_normalisation_left_out_is_said(token_net, image, tmp_path):
    artifact = exporters.export(token_net, image, to="executorch", path=tmp_path / "n.pte", precision="fp16")
    assert any("Outside of the delegate stay aten::native_layer_norm.out" in note for note in artifact.notes)


@pytest.mark.slow
def test_windows_groups_and_means_are_inside_of_the_partition(image, tmp_path):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 5)

        def forward(self, image):
            maps = self.norm(self.stem(image)).roll((1, 2), (2, 3))
            return self.head(maps.permute(0, 2, 3, 1).mean((1, 2))) + self.head(maps.mean((2, 3)))

    model = Shifted()
    artifact = exporters.export(model, image, to="executorch", path=tmp_path / "n.pte")
    assert artifact.details["delegation"]["partitions"] == 1
    assert artifact.details["delegation"]["outside"] == {}
    assert relative_l2(*outputs(model, artifact, torch.randn(1, 3, PIXELS, PIXELS))) <= 1e-5


def test_weights_and_arithmetic_of_fp16_are_read_from_the_file(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="executorch", path=tmp_path / "n.pte", precision="fp16")
    # 4 x 3 x 3 x 3 weights of the convolution stay in 4 bytes each, 5 x 4 of the head take 2 bytes each.
    assert artifact.audit.weight_bytes == {"float32": 432, "float16": 40}
    assert artifact.audit.operators == {"float16": 2}
    assert artifact.notes[0].startswith("XNNPACK keeps the weights of convolutions in float32 (432 bytes)")


def test_metadata_is_returned_by_a_method_of_the_file(token_file):
    program = Runtime.get().load_program(token_file.path)
    assert json.loads(program.load_method("exporters_metadata").execute([])[0]).items() >= LABELS.items()


@pytest.mark.slow
def test_another_export_is_equal_byte_by_byte(token_net, token_file, image, tmp_path):
    again = exporters.export(token_net, image, to="executorch", path=tmp_path / "n.pte", metadata=LABELS)
    assert again.path.read_bytes() == token_file.path.read_bytes()


def test_names_and_types_are_kept_in_order(tmp_path):
    class TwoOutputs(nn.Module):
        def forward(self, tokens, mask):
            return {"total": (tokens * mask).sum(1), "mean": mask.mean(1)}

    tokens, mask = torch.randint(0, 9, (2, 5)), torch.rand(2, 5)
    artifact = exporters.export(TwoOutputs(), (tokens, mask), to="executorch", path=tmp_path / "n.pte")
    found = exporters.load(artifact).run({"tokens": tokens.numpy(), "mask": mask.numpy()})
    np.testing.assert_allclose(found["total"], (tokens * mask).sum(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], mask.mean(1).numpy(), rtol=1e-6)


def test_sessions_with_other_numbers_of_threads_take_turns(token_file, image):
    sessions = [exporters.load(token_file, threads=threads) for threads in (1, 2)]
    assert [session.properties["threads"] for session in sessions] == [1, 2]
    results = [session.run({"image": image.numpy()})["output"] for session in (*sessions, sessions[0])]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_results_of_one_call_survive_the_next(token_file, image):
    session = exporters.load(token_file)
    first = session.run({"image": image.numpy()})["output"]
    before = first.copy()
    session.run({"image": 2 * image.numpy()})
    np.testing.assert_array_equal(first, before)


@pytest.mark.slow
def test_the_program_for_core_ml_is_evaluated_but_does_not_load_elsewhere(small_net, image, tmp_path):
    exporter = ExecuTorchExporter(backend="coreml")
    artifact = exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte", precision="fp16")
    assert artifact.details["delegation"]["delegates"] == ["CoreMLBackend"]
    assert artifact.verified_on.startswith("coreml-evaluator")
    assert artifact.parity.outputs[0].relative_l2 <= 5e-3
    assert artifact.audit.operators == {"float16": 2}
    with pytest.raises(exporters.PlatformError, match=r"needs a runtime with CoreMLBackend, but this one has"):
        exporters.load(artifact)


@pytest.mark.slow
def test_a_faulty_program_for_core_ml_is_caught(small_net, image, tmp_path, broken_exporter):
    def swap(module):
        module.head.weight.data[1, 2] += 0.1
        return module

    exporter = broken_exporter(exporter=ExecuTorchExporter(backend="coreml"), mistake=swap)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte")


def test_a_faulty_conversion_is_caught_and_leaves_no_file(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=ExecuTorchExporter(backend="portable"), mistake=mistake)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ:\n  output `output`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte")
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_refused(small_net, image, tmp_path, broken_exporter):
    exporter = broken_exporter(
        exporter=ExecuTorchExporter(), damage=lambda path: path.write_bytes(path.read_bytes()[:100])
    )
    with pytest.raises(ConversionError, match=r"n.pte must be an ExecuTorch program"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte")


def test_a_range_narrowed_by_lowering_is_caught(small_net, image, tmp_path, monkeypatch):
    monkeypatch.setattr("exporters.executorch.lowering.declared_ranges_kept", torch.no_grad)
    with pytest.raises(ConversionError, match=r"input `image` of the file must be float32 of shape"):
        exporters.export(small_net, image, to="executorch", path=tmp_path / "n.pte", dynamic_batch=(1, 20))


def test_an_operator_without_a_kernel_is_named(tmp_path):
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    with pytest.raises(ConversionError, match=r"_linalg_det"):
        exporters.export(Determinant(), torch.randn(2, 3, 3), to="executorch", path=tmp_path / "n.pte")


@pytest.mark.slow
def test_two_dynamic_sizes_in_one_reshape_name_the_cure(tmp_path):
    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("input", ("batch", 2, "time"), "float32"),),
        dimensions={"batch": exporters.DimensionRange(1, 4), "time": exporters.DimensionRange(8, 64)},
    )
    model = nn.Conv1d(2, 3, 3)
    with pytest.raises(ConversionError, match=r"fix all but one .*\(backend='portable'\)"):
        exporters.export(model, spec, to="executorch", path=tmp_path / "n.pte")
    artifact = exporters.export(model, spec, to=ExecuTorchExporter(backend="portable"), path=tmp_path / "n.pte")
    assert set(artifact.parity.batch_sizes) >= {1, 4}


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"`backend` must be one of .*, got 'vulkan'"):
        ExecuTorchExporter(backend="vulkan")


@pytest.mark.parametrize(("backend", "precision"), [("portable", "int8"), ("coreml", "int8"), ("xnnpack", "bf16")])
def test_a_precision_that_the_backend_does_not_have_is_refused(small_net, image, tmp_path, backend, precision):
    exporter = ExecuTorchExporter(backend=backend)
    with pytest.raises(ConversionError, match=f"got '{precision}'"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.pte", precision=precision)


@pytest.mark.slow
def test_clamps_in_a_row_keep_the_ends_of_both(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(-0.2, 0.2), nn.ReLU())
    artifact = exporters.export(net, torch.randn(1, 3, 8, 8), to="executorch", path=tmp_path / "n.pte")
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5


@pytest.mark.slow
def test_a_learned_map_is_repeated_for_every_sample(tmp_path):
    class WithPositions(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 8, 8, 4))
            self.projection = nn.Conv2d(4, 3, 1)

        def forward(self, x):
            positions = self.projection(self.positions.permute(0, 3, 1, 2))
            return x + positions.repeat(x.shape[0], 1, 1, 1)

    path = tmp_path / "n.pte"
    artifact = exporters.export(
        WithPositions(), torch.randn(2, 3, 8, 8), to="executorch", path=path, dynamic_batch=(1, 4)
    )
    assert artifact.parity.outputs[0].relative_l2 <= 1e-5


@pytest.mark.slow
def test_a_part_of_a_constant_is_read_where_it_begins(tmp_path):
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            biases = torch.cat([self.first.bias, self.second.bias]).chunk(2)
            return nn.functional.linear(x, self.second.weight, biases[1])

    artifact = exporters.export(Parts(), torch.randn(2, 4), to="executorch", path=tmp_path / "n.pte")
    assert artifact.parity.outputs[0].relative_l2 <= 1e-6

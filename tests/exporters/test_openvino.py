from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.errors import ConversionError, ExportError, ParityError
from exporters.openvino import OpenVINOExporter
from exporters.quiet import no_telemetry
from exporters.sessions.openvino import OpenVINOSession
from exporters.signature import DimensionRange, TensorSpec

with no_telemetry():
    import openvino


@pytest.mark.parametrize("dynamic_batch", [False, (2, 6)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_runs_and_agrees_over_its_whole_range(small_net, image, tmp_path, precision, dynamic_batch):
    artifact = exporters.export(
        small_net, image, to="openvino", path=tmp_path / "n.xml", precision=precision, dynamic_batch=dynamic_batch
    )
    session = exporters.load(artifact.path, threads=1)
    for size in (2, 5, 6) if dynamic_batch else (1,):
        images = torch.randn(size, 3, 8, 8)
        expected = small_net.eval()(images).detach().numpy()
        output = session.run({"image": images.numpy()})["output"]
        bound = {"fp32": 1e-5, "fp16": 5e-3}[precision]
        assert np.linalg.norm(output - expected) <= bound * np.linalg.norm(expected)
    with pytest.raises(exporters.InputError, match=r"batch|shape"):
        session.run({"image": np.zeros((7, 3, 8, 8), np.float32)})
    assert artifact.verified_on == f"openvino {artifact.versions['openvino']} on CPU"


def test_static_sizes_are_kept_and_ranges_bounded(small_net, image, tmp_path):
    static = exporters.export(small_net, image, to="openvino", path=tmp_path / "static.xml")
    dynamic = exporters.export(small_net, image, to="openvino", path=tmp_path / "dynamic.xml", dynamic_batch=(2, 6))
    shapes = [openvino.Core().read_model(artifact.path).inputs[0].partial_shape for artifact in (static, dynamic)]
    assert [str(shape) for shape in shapes] == ["[1,3,8,8]", "[2..6,3,8,8]"]


def test_names_types_and_metadata_are_in_the_file(tmp_path):
    class TwoOutputs(nn.Module):
        def forward(self, tokens, mask):
            return {"total": (tokens * mask).sum(1), "mean": mask.mean(1)}

    inputs = (torch.randint(0, 9, (2, 5)), torch.rand(2, 5))
    path = tmp_path / "n.xml"
    artifact = exporters.export(TwoOutputs(), inputs, to="openvino", path=path, metadata={"labels": "cat,dog"})
    model = openvino.Core().read_model(path)
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["tokens", "mask", "total", "mean"]
    assert model.get_rt_info(["exporters", "labels"]).astype(str) == "cat,dog"
    assert [spec.dtype for spec in artifact.inputs] == ["int64", "float32"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["n.bin", "n.xml", "n.xml.manifest.json"]


def test_weights_are_compressed_only_when_asked_for(tmp_path):
    model, example = nn.Linear(64, 64), torch.randn(1, 64)
    full = exporters.export(model, example, to="openvino", path=tmp_path / "full.xml")
    half = exporters.export(model, example, to="openvino", path=tmp_path / "half.xml", precision="fp16")
    sizes = [(tmp_path / f"{name}.bin").stat().st_size for name in ("full", "half")]
    assert sizes[0] >= 64 * 65 * 4
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)
    assert full.notes == ()
    assert half.notes == ("Weights are stored in float16; on a CPU they are computed in float32.",)


def test_computes_in_float32_unless_told_to_choose(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="openvino", path=tmp_path / "n.xml")
    exact = exporters.load(artifact, threads=1).properties
    assert exact["active_precision"] == "fp32"
    assert exact["threads"] == 1
    assert exact["streams"] == 1
    chosen = exporters.load(artifact, precision="default").properties["active_precision"]
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert chosen == ("bf16" if "BF16" in capabilities else "fp32")


def test_results_of_one_call_survive_the_next(small_net, image, tmp_path):
    session = exporters.load(exporters.export(small_net, image, to="openvino", path=tmp_path / "n.xml"))
    first = session.run({"image": image.numpy()})["output"]
    before = first.copy()
    session.run({"image": 2 * image.numpy()})
    np.testing.assert_array_equal(first, before)


def test_a_faulty_conversion_is_caught_and_leaves_no_file(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=OpenVINOExporter(), mistake=mistake)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ:\n  output `output`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.xml")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_changed_in_the_file_is_caught(image, tmp_path, broken_exporter):
    def damage(path):
        weights = np.fromfile(path.with_suffix(".bin"), np.float32)
        weights[weights.size // 2] += 0.01
        weights.tofile(path.with_suffix(".bin"))

    exporter = broken_exporter(exporter=OpenVINOExporter(), damage=damage)
    with pytest.raises(ParityError, match=r"output `output`"):
        exporters.export(nn.Conv2d(3, 4, 3), image, to=exporter, path=tmp_path / "n.xml")


def test_a_file_that_forgot_its_sizes_is_refused(small_net, image, tmp_path, broken_exporter):
    def damage(path):
        model = openvino.Core().read_model(path).clone()
        model.reshape([-1, 3, 8, 8])
        openvino.save_model(model, path.with_name("copy.xml"), compress_to_fp16=False)
        for suffix in (".xml", ".bin"):
            path.with_name("copy").with_suffix(suffix).rename(path.with_suffix(suffix))

    exporter = broken_exporter(exporter=OpenVINOExporter(), damage=damage)
    with pytest.raises(ConversionError, match=r"input `image` of the file must be float32 of shape"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.xml")


def test_a_file_that_openvino_cannot_read_is_named(small_net, image, tmp_path, broken_exporter):
    exporter = broken_exporter(
        exporter=OpenVINOExporter(), damage=lambda path: path.with_suffix(".bin").write_bytes(b"")
    )
    with pytest.raises(exporters.ExportError, match=r"n.xml|n.bin"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.xml")


@pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="no bfloat16"
)
def test_bf16_is_stored_and_computed_and_read_back(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="openvino", path=tmp_path / "n.xml", precision="bf16")
    assert exporters.load(artifact, threads=1).properties["active_precision"] == "bf16"
    assert set(artifact.audit.weight_bytes) == set(artifact.audit.operators) == {"bfloat16"}
    # 4 * 3 * 9 and 5 * 4 weights, and 4 and 5 biases, which OpenVINO gives the outputs' number of dimensions.
    assert artifact.audit.weight_bytes["bfloat16"] == 2 * (108 + 20 + 4 + 5)
    # One rounding to 8 bits of mantissa is an error of at most 2^-9.
    assert 1e-4 < artifact.parity.outputs[0].relative_l2 < 2e-2


def test_two_exports_of_a_network_have_equal_bytes(small_net, image, tmp_path):
    names = ("a", "b")
    for name in names:
        (tmp_path / name).mkdir()
        exporters.export(small_net, image, to="openvino", path=tmp_path / name / "n.xml", dynamic_batch=True)
    for suffix in ("xml", "bin"):
        first, second = ((tmp_path / name / f"n.{suffix}").read_bytes() for name in names)
        assert first == second


def test_operations_say_which_module_they_come_from(small_net, image, tmp_path):
    exporters.export(small_net, image, to="openvino", path=tmp_path / "n.xml")
    operations = openvino.Core().read_model(tmp_path / "n.xml").get_ordered_ops()
    layers = {op.get_type_name(): op.get_friendly_name().partition("/")[0] for op in operations}
    assert layers["Convolution"] == "convolution"
    assert layers["MatMul"] == "head"


class MaskedAttention(nn.Module):
    """Attention with a mask that depends on the values, which OpenVINO fuses with the products around it."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, tokens):
        queries, keys, values = self.project(tokens).unflatten(2, (2, 12)).transpose(1, 2).chunk(3, dim=3)
        return nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=tokens[:, None, :1, :1] > -9)


def test_fused_attention_counts_as_the_type_that_it_computes_in(tmp_path):
    path = tmp_path / "attention.xml"
    artifact = exporters.export(MaskedAttention(), torch.randn(2, 5, 8), to="openvino", path=path, dynamic_batch=(1, 4))
    assert set(artifact.audit.operators) == {"float32"}


def test_a_failure_while_it_runs_names_the_inputs(tmp_path):
    artifact = exporters.export(nn.Linear(4, 2), torch.randn(3, 4), to="openvino", path=tmp_path / "n.xml")
    rows = TensorSpec("input", ("batch", 4), "float32")
    claimed = replace(artifact.signature, inputs=(rows,), dimensions={"batch": DimensionRange(1, 4)})
    session = OpenVINOSession(replace(artifact, signature=claimed), threads=1, precision="fp32")
    assert session.run({"input": np.ones((3, 4), np.float32)})["output"].shape == (3, 2)
    with pytest.raises(ExportError, match=r"run on `input` of shape \(2, 4\), but OpenVINO failed: "):
        session.run({"input": np.ones((2, 4), np.float32)})

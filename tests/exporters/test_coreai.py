import asyncio
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import exporters
from exporters.coreai import CoreAIExporter
from exporters.errors import ConversionError, ExportError, ParityError
from exporters.quantization.fake import calibrate, prepare_qat
from exporters.sessions.coreai import CoreAISession
from exporters.sessions.pytorch import torch_threads

from coreai.authoring.asset import AIModelAsset  # isort: skip - after exporters, which silence it

BOUNDS = {"fp32": 1e-5, "fp16": 5e-3, "bf16": 2e-2}


class Attention(nn.Module):
    """A patch embedding, one attention block without biases of its own, and a head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.head = nn.Linear(16, 5)

    def forward(self, image):
        tokens = self.norm(self.patches(image).flatten(2).transpose(1, 2))
        query, key, value = self.qkv(tokens).reshape(image.shape[0], -1, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(tokens.shape)
        return self.head(F.gelu(tokens + mixed).mean(1))


@pytest.fixture(scope="module")
def attention():
    torch.manual_seed(0)
    return Attention().eval()


@pytest.fixture(scope="module")
def written(attention, tmp_path_factory):
    """The attention network in every precision, with any batch of 1 to 3."""
    folder = tmp_path_factory.mktemp("coreai")
    with torch_threads(1):
        return {
            precision: exporters.export(
                attention,
                torch.randn(2, 3, 16, 16),
                to="coreai",
                path=folder / f"{precision}.aimodel",
                precision=precision,
                dynamic_batch=(1, 3),
                metadata={"labels": "cat,dog"},
            )
            for precision in BOUNDS
        }


@pytest.mark.parametrize("precision", BOUNDS)
def test_runs_and_agrees_over_its_whole_range(attention, written, precision):
    session = exporters.load(written[precision].path)
    for size in (1, 2, 3):
        images = torch.randn(size, 3, 16, 16)
        expected = attention(images).detach().numpy()
        output = session.run({"image": images.numpy()})["output"]
        assert output.dtype == np.float32
        assert np.linalg.norm(output - expected) <= BOUNDS[precision] * np.linalg.norm(expected)
    with pytest.raises(exporters.InputError, match="must be 1 to 3, got 4"):
        session.run({"image": np.zeros((4, 3, 16, 16), np.float32)})


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_stores_and_computes_in_the_type_that_was_asked_for(written, precision, dtype):
    audit = written[precision].audit
    # A convolution, the projections to queries, keys and values, two products of the attention, and the head.
    assert audit.operators == {dtype: 5}
    # Weights of 16*3*4*4 + 48*16 + 5*16 elements; layouts of biases may have two dimensions, too.
    bytes_each = 4 if precision == "fp32" else 2
    assert list(audit.weight_bytes) == [dtype]
    assert 1616 * bytes_each <= audit.weight_bytes[dtype] <= 1.1 * 1616 * bytes_each


def test_the_asset_is_described_and_carries_its_metadata(written):
    asset = AIModelAsset.load(written["fp32"].path)
    assert asset.metadata.creator_defined_metadata["labels"] == "cat,dog"
    assert asset.summary(include_statistics=False).function_inputs("main") == [
        (
            "image",
            "NDArray (Float32, ? \N{MULTIPLICATION SIGN} 3 \N{MULTIPLICATION SIGN} 16 \N{MULTIPLICATION SIGN} 16)",
        )
    ]
    assert written["fp32"].versions.keys() == {"torch", "coreai-core", "coreai-torch"}
    assert written["fp32"].verified_on == f"coreai {written['fp32'].versions['coreai-core']} on CPU (interpreter)"


def test_two_exports_differ_in_private_names_only(attention, written, tmp_path):
    again = exporters.export(
        attention,
        torch.randn(2, 3, 16, 16),
        to="coreai",
        path=tmp_path / "fp32.aimodel",
        dynamic_batch=(1, 3),
        metadata={"labels": "cat,dog"},
    )
    first, second = (artifact.path / "metadata.json" for artifact in (written["fp32"], again))
    assert first.read_bytes() == second.read_bytes()
    assert json.loads(first.read_text())["creationDate"] == "19700101T000000Z"
    texts = [_without_private_names(artifact.path) for artifact in (written["fp32"], again)]
    assert texts[0] == texts[1]


def _without_private_names(path):
    """A program's text without the random ends of function names, which also decide the order of functions."""
    text = str(AIModelAsset.load(path).program)
    return sorted(re.sub(r"_[a-z]{8}\b", "", text).splitlines())


def test_integers_become_32_bit_and_booleans_stay(tmp_path):
    class Masked(nn.Module):
        def forward(self, tokens, mask):
            return {"total": (tokens * mask).sum(1), "mean": mask.float().mean(1)}

    inputs = (torch.randint(0, 9, (2, 5)), torch.rand(2, 5) > 0.5)
    artifact = exporters.export(Masked(), inputs, to="coreai", path=tmp_path / "n.aimodel")
    assert [(spec.name, spec.dtype) for spec in artifact.inputs] == [("tokens", "int32"), ("mask", "bool")]
    assert [(spec.name, spec.dtype) for spec in artifact.outputs] == [("total", "int32"), ("mean", "float32")]
    tokens, mask = inputs[0].numpy().astype(np.int32), inputs[1].numpy()
    outputs = exporters.load(artifact).run({"tokens": tokens, "mask": mask})
    np.testing.assert_array_equal(outputs["total"], (tokens * mask).sum(1))


@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"stride": 2, "padding": 1, "count_include_pad": False}])
def test_rows_are_pooled(tmp_path, options):
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.AvgPool1d(3, **options))
    artifact = exporters.export(net, torch.randn(1, 2, 20), to="coreai", path=tmp_path / "n.aimodel")
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


def test_windows_are_put_back(tmp_path):
    class Windows(nn.Module):
        def forward(self, image):
            columns = nn.functional.unfold(image, 3, padding=1, stride=2)
            return nn.functional.fold(columns.tanh(), image.shape[-2:], 3, padding=1, stride=2)

    path = tmp_path / "n.aimodel"
    artifact = exporters.export(Windows(), torch.randn(2, 3, 8, 9), to="coreai", path=path, dynamic_batch=(1, 4))
    assert artifact.parity.outputs[0].relative_l2 < 1e-6


@pytest.mark.slow
def test_image_size_and_audio_length_may_be_dynamic(tmp_path):
    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("input", ("batch", 1, "time"), "float32", value_range=(-1.0, 1.0)),),
        dimensions={"batch": exporters.DimensionRange(1, 2), "time": exporters.DimensionRange(40, 200)},
    )
    encoder = nn.Sequential(nn.Conv1d(1, 8, 10, stride=5), nn.GroupNorm(8, 8), nn.GELU(), nn.Conv1d(8, 4, 3, stride=2))
    artifact = exporters.export(encoder, spec, to="coreai", path=tmp_path / "audio.aimodel")
    assert exporters.load(artifact).run({"input": np.zeros((1, 1, 111), np.float32)})["output"].shape == (1, 4, 10)
    size = exporters.DimensionRange(16, 48)
    spec = exporters.ExportSpec(
        inputs=(exporters.TensorSpec("input", (1, 3, "height", "width"), "float32", value_range=(0.0, 1.0)),),
        dimensions={"height": size, "width": size},
    )
    dense = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(3, 1, 1, count_include_pad=False))
    artifact = exporters.export(dense, spec, to="coreai", path=tmp_path / "image.aimodel")
    assert exporters.load(artifact).run({"input": np.zeros((1, 3, 17, 40), np.float32)})["output"].shape[2:] == (17, 40)


def test_runs_inside_an_event_loop_and_keeps_what_it_returned(written):
    session = exporters.load(written["fp32"])
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32).transpose(0, 3, 1, 2)

    async def inside():
        return session.run({"image": image})["output"]

    first = asyncio.run(inside())
    before = first.copy()
    session.run({"image": 2 * image})
    np.testing.assert_array_equal(first, before)
    np.testing.assert_array_equal(first, session.run({"image": np.ascontiguousarray(image)})["output"])


@pytest.mark.slow
def test_a_faulty_conversion_is_caught_and_leaves_no_file(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=CoreAIExporter(), mistake=mistake)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ:\n  output `output`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.aimodel")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_asset_is_named(tmp_path, broken_exporter):
    exporter = broken_exporter(
        exporter=CoreAIExporter(), damage=lambda path: (path / "main.mlirb").write_bytes(b"nothing")
    )
    with pytest.raises(ConversionError, match=r"n\.aimodel must be readable by Core AI"):
        exporters.export(nn.ReLU(), torch.randn(1, 2), to=exporter, path=tmp_path / "n.aimodel")


def test_a_failure_while_it_runs_names_the_inputs(tmp_path):
    artifact = exporters.export(nn.Linear(4, 2), torch.randn(3, 4), to="coreai", path=tmp_path / "n.aimodel")
    rows = exporters.TensorSpec("input", ("batch", 4), "float32")
    claimed = replace(artifact.signature, inputs=(rows,), dimensions={"batch": exporters.DimensionRange(1, 4)})
    session = CoreAISession(replace(artifact, signature=claimed), threads=1, precision="fp32")
    assert session.run({"input": np.ones((3, 4), np.float32)})["output"].shape == (3, 2)
    with pytest.raises(ExportError, match=r"run on `input` of shape \(2, 4\), but Core AI failed: "):
        session.run({"input": np.ones((2, 4), np.float32)})


def test_an_operator_that_core_ai_lacks_is_named(tmp_path):
    class Sorted(nn.Module):
        def forward(self, input):
            return torch.linalg.eigvalsh(input)

    with pytest.raises(ConversionError, match=r"Core AI, but coreai-torch raised .*linalg"):
        exporters.export(Sorted(), torch.randn(1, 2, 2), to="coreai", path=tmp_path / "n.aimodel")


def test_a_type_that_core_ai_lacks_is_named(tmp_path):
    class Short(nn.Module):
        def forward(self, input):
            return input.short()

    with pytest.raises(
        ConversionError, match=r"`output` must be float32, int32, bool, uint8 or int64 for Core AI, got int16"
    ):
        exporters.export(Short(), torch.randn(1, 2), to="coreai", path=tmp_path / "n.aimodel")


@pytest.fixture(scope="module")
def integers(attention, tmp_path_factory):
    """The attention network in int8, and the samples that its ranges come from."""
    samples = torch.randn(24, 3, 16, 16)
    with torch_threads(1):
        path = tmp_path_factory.mktemp("coreai") / "int8.aimodel"
        artifact = exporters.export(
            attention, samples[:2], to="coreai", path=path, precision="int8", calibration=samples
        )
    return artifact, samples


def test_int8_computes_layers_from_integers_and_says_what_does_not(attention, written, integers):
    artifact, _ = integers
    # The convolution and both linear layers; the two products inside of attention stay in float.
    assert artifact.audit.operators == {"int8": 3, "float32": 2}
    assert artifact.audit.weight_bytes["int8"] == 16 * 3 * 4 * 4 + 48 * 16 + 5 * 16
    assert [trial.recipe for trial in artifact.quantization.trials[:2]] == ["minmax", "percentile"]
    assert artifact.quantization.calibration.count == 24
    assert artifact.quantization.left_in_float == ()
    assert artifact.parity.outputs[0].cosine >= 0.99


def test_int8_stays_close_on_inputs_that_were_not_seen(attention, integers):
    images = torch.randn(2, 3, 16, 16)
    output = exporters.load(integers[0]).run({"image": images.numpy()})["output"]
    expected = attention(images).detach().numpy()
    assert (output * expected).sum() >= 0.98 * np.linalg.norm(output) * np.linalg.norm(expected)


@pytest.mark.slow
def test_what_was_trained_as_int8_needs_no_calibration(small_net, tmp_path):
    images = torch.randn(8, 3, 8, 8)
    prepare_qat(small_net, images[:1])
    calibrate(small_net, [images])
    artifact = exporters.export(small_net, images[:1], to="coreai", path=tmp_path / "n.aimodel", precision="int8")
    assert artifact.quantization.recipe == "quantisation-aware training"
    assert artifact.audit.operators == {"int8": 2}
    # The file computes what the rounded network computes, to the rounding of float32.
    assert artifact.parity.outputs[0].cosine >= 0.9999


@pytest.mark.slow
def test_layers_may_stay_in_float(attention, tmp_path):
    artifact = exporters.export(
        attention,
        torch.randn(2, 3, 16, 16),
        to="coreai",
        path=tmp_path / "n.aimodel",
        precision="int8",
        calibration=torch.randn(8, 3, 16, 16),
        quantization=exporters.QuantizationOptions(recipe="minmax", keep_float=("head",)),
    )
    assert artifact.quantization.left_in_float == ("head",)
    assert artifact.audit.operators == {"int8": 2, "float32": 3}

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import exporters
from exporters.errors import ConversionError, MissingRuntimeError, ParityError
from exporters.onnx_graph import opset_of
from exporters.quantization import QuantizationOptions
from exporters.quantization.fake import FakeQuantization, calibrate, prepare_qat
from exporters.tensorrt.exporter import TensorRTExporter
from exporters.tensorrt.options import BuildOptions

pytestmark = pytest.mark.slow
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
KINDS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}


class Attention(nn.Module):
    """A linear layer, attention without weights, and another linear layer."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        weights = (query @ key.transpose(1, 2) / 8**0.5).softmax(-1)
        return self.head((weights @ value).mean(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tensorrt")


@pytest.fixture(scope="module")
def made(folder, make_small_net):
    """One export per precision, with a batch of 1 to 4."""
    torch.manual_seed(0)
    images = torch.randn(20, 3, 8, 8)
    found = {}
    for precision in PRECISIONS:
        path = folder / f"{precision}.tensorrt"
        options = {"calibration": images} if precision == "int8" else {}
        found[precision] = exporters.export(
            make_small_net(), images[:2], to="tensorrt", path=path, precision=precision, dynamic_batch=(1, 4), **options
        )
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_value_has_the_type_asked_for(made, precision):
    artifact = made[precision]
    # One convolution and one linear layer.
    assert artifact.audit.operators == {KINDS[precision]: 2}
    assert artifact.audit.left_in_float == ()
    # 4 * 3 * 3 * 3 weights of the convolution and 4 * 5 of the linear layer
    bytes_each = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}[precision]
    assert artifact.audit.weight_bytes == {KINDS[precision]: 128 * bytes_each}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_is_verified_in_two_runtimes(made, precision):
    artifact = made[precision]
    runtimes = ["openvino"] if precision == "bf16" else ["onnxruntime", "openvino"]
    assert [name.split()[0] for name in artifact.verified_on.split(" and ")] == runtimes
    assert [name.split()[0] for name in artifact.details["parity"]] == runtimes
    for (figures,) in artifact.details["parity"].values():
        assert figures["relative_l2"] <= {"fp32": 1e-5, "fp16": 5e-3, "bf16": 2e-2, "int8": 0.1}[precision]


def test_the_graph_keeps_its_inputs_and_outputs_and_metadata(folder, small_net, image):
    path = folder / "described.tensorrt"
    exporters.export(small_net, image, to="tensorrt", path=path, precision="fp16", metadata={"labels": "cat,dog"})
    model = onnx.load(path / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["labels"] == "cat,dog"
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        onnx.TensorProto.FLOAT
    }
    assert opset_of(model) == 20


def test_int8_is_symmetric_with_float16_scales(made):
    model = onnx.load(made["int8"].path / "model.onnx")
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type.endswith("quantizeLinear") or "Quantize" in node.op_type]
    assert {str(known[node.input[1]].dtype) for node in pairs} == {"float16"}
    assert {int(np.abs(known[node.input[2]]).max()) for node in pairs} == {0}
    assert not any(array.dtype == np.int32 for array in known.values())


def test_int8_tries_two_recipes_and_takes_the_closer(made):
    report = made["int8"].quantization
    assert [trial.recipe for trial in report.trials] == ["products", "products-percentile"]
    assert report.recipe == max(report.trials, key=lambda trial: trial.cosine).recipe
    assert report.calibration.count == 20


def test_attention_is_also_tried_without_its_own_products(folder):
    tokens = torch.randn(24, 6, 8)
    artifact = exporters.export(
        Attention(), tokens[:1], to="tensorrt", path=folder / "attention.tensorrt", precision="int8", calibration=tokens
    )
    tried = [trial.recipe for trial in artifact.quantization.trials]
    assert tried == ["products", "weighted", "products-percentile"]
    # Two linear layers, and two products of activations that are int8 unless `weighted` is the closest.
    expected = {"int8": 2, "float16": 2} if artifact.quantization.recipe == "weighted" else {"int8": 4}
    assert artifact.audit.operators == expected


def test_layers_can_be_kept_in_float(small_net, tmp_path):
    images = torch.randn(12, 3, 8, 8)
    artifact = exporters.export(
        small_net,
        images[:1],
        to="tensorrt",
        path=tmp_path / "n.tensorrt",
        precision="int8",
        calibration=images,
        quantization=QuantizationOptions(keep_float=("head",)),
    )
    assert artifact.audit.operators == {"int8": 1, "float16": 1}
    assert artifact.quantization.left_in_float == ("head",)


def test_ranges_that_were_trained_are_taken_over(small_net, tmp_path):
    images = torch.randn(8, 3, 8, 8)
    prepare_qat(small_net, images[:2], FakeQuantization(activations="symmetric"))
    calibrate(small_net, [images])
    artifact = exporters.export(small_net, images[:2], to="tensorrt", path=tmp_path / "n.tensorrt", precision="int8")
    assert artifact.quantization.recipe == "quantisation-aware training"
    assert artifact.audit.operators == {"int8": 2}
    # 128 weights in all, of one byte each
    assert artifact.audit.weight_bytes == {"int8": 128}
    # PyTorch rounds as the graph does, so that only the float16 between the layers is left.
    assert artifact.parity.outputs[0].relative_l2 <= 5e-3


def test_trained_ranges_with_zero_points_are_refused_with_the_cure(small_net, tmp_path):
    images = torch.randn(8, 3, 8, 8)
    prepare_qat(small_net, images[:2])
    calibrate(small_net, [images])
    with pytest.raises(ConversionError, match=r"zero point of .* instead of int8 0.*activations='symmetric'"):
        exporters.export(small_net, images[:2], to="tensorrt", path=tmp_path / "n.tensorrt", precision="int8")


def test_says_that_no_engine_was_built_and_how_to_build_it(made):
    artifact = made["fp32"]
    assert artifact.details["engine"] is None
    (note,) = artifact.notes
    assert note.startswith("No engine was built: TensorRT 10 or 11 must be installed")
    assert note.endswith("python fp32.tensorrt/build.py")


def test_the_folder_has_all_that_building_and_timing_need(made):
    specification = json.loads((made["int8"].path / "build.json").read_text())
    assert specification["precision"] == "int8"
    assert specification["profiles"] == {"image": {"min": [1, 3, 8, 8], "opt": [3, 3, 8, 8], "max": [4, 3, 8, 8]}}
    assert {record.name.removeprefix("int8.tensorrt/") for record in made["int8"].files} == {
        "build.json",
        "build.py",
        "exporters/__init__.py",
        "exporters/errors.py",
        *(
            f"exporters/tensorrt/{name}.py"
            for name in ("__init__", "build", "engine", "inspector", "memory", "options")
        ),
        "model.onnx",
    }


def test_the_build_script_needs_the_standard_library_only(made, tmp_path):
    # Isolated, and without site-packages: neither NumPy nor this package can be imported.
    command = [sys.executable, "-I", "-S", made["fp16"].path / "build.py"]
    finished = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("TensorRT 10 or 11 must be installed to build an engine, but No module named")


def test_the_build_script_refuses_a_graph_that_was_changed(made, tmp_path):
    script = made["fp16"].path / "build.py"
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", script.parent, copied], check=True)  # noqa: S607
    (copied / "model.onnx").write_bytes(b"other")
    command = [sys.executable, "-I", "-S", copied / "build.py"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "model.onnx must be as it was exported, got other content" in finished.stderr


def test_an_engine_that_must_be_built_raises_and_leaves_no_folder(small_net, image, tmp_path):
    exporter = TensorRTExporter(build="always")
    with pytest.raises(MissingRuntimeError, match=r"TensorRT 10 or 11 must be installed"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.tensorrt")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_need_not_be_built_is_left_to_the_target(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to=TensorRTExporter(build="never"), path=tmp_path / "n.tensorrt")
    assert artifact.notes[0].startswith("No engine was built: build='never'.")
    assert exporters.Artifact.read(artifact.path).details["engine"] is None


def test_a_faulty_conversion_is_caught(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=TensorRTExporter(build="never"), mistake=mistake)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ:\n  output `output`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.tensorrt")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_quantised_can_stay_in_float32(small_net, tmp_path):
    images = torch.randn(12, 3, 8, 8)
    exporter = TensorRTExporter(build="never", unquantized="fp32")
    artifact = exporters.export(
        small_net, images[:1], to=exporter, path=tmp_path / "n.tensorrt", precision="int8", calibration=images
    )
    model = onnx.load(artifact.path / "model.onnx")
    assert not any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    session = onnxruntime.InferenceSession(artifact.path / "model.onnx")
    assert [output.type for output in session.get_outputs()] == ["tensor(float)"]


@pytest.mark.parametrize(
    ("exporter", "precision", "dynamic", "message"),
    [
        ({"opset": 18}, "int8", False, r"`opset` must be at least 19 for int8 with unquantized='fp16'.*got 18"),
        ({"opset": 21}, "bf16", False, r"`opset` must be at least 22 for bf16, got 21"),
        ({"options": BuildOptions(dla_core=0)}, "fp32", False, r"'fp16' or 'int8' on a DLA, got 'fp32'"),
        ({"options": BuildOptions(dla_core=0)}, "fp16", True, r"every size must be fixed on a DLA, got .*batch"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_tried(
    small_net, image, tmp_path, exporter, precision, dynamic, message
):
    options = {"calibration": torch.randn(4, 3, 8, 8)} if precision == "int8" else {}
    with pytest.raises(ConversionError, match=message):
        exporters.export(
            small_net,
            image,
            to=TensorRTExporter(**exporter),
            path=tmp_path / "n.tensorrt",
            precision=precision,
            dynamic_batch=dynamic,
            **options,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"build": "maybe"}, r"`build` must be one of .*got 'maybe'"),
        ({"unquantized": "bf16"}, r"`unquantized` must be 'fp16' or 'fp32', got 'bf16'"),
        ({"opset": 17}, r"`opset` must be None or from 18 to [0-9]+, got 17"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TensorRTExporter(**options)

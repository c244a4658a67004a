import numpy as np
import onnx
import pytest
import torch
from torch import nn

import exporters
from exporters.errors import ConversionError, ExportError, ParityError
from exporters.onnx import OnnxExporter
from exporters.signature import DimensionRange


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, tokens, mask):
        features = self.norm(self.embedding(tokens)) * mask[..., None]
        return {"features": features, "counts": mask.sum(1).long(), "any": features[..., 0] > 0}


@pytest.mark.parametrize("dynamic_batch", [False, (1, 6)])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_runs_and_agrees_over_its_whole_range(small_net, image, tmp_path, precision, dynamic_batch):
    artifact = exporters.export(
        small_net, image, to="onnx", path=tmp_path / "student.onnx", precision=precision, dynamic_batch=dynamic_batch
    )
    session = exporters.load(artifact.path, threads=1)
    for size in (1, 5, 6) if dynamic_batch else (1,):
        images = torch.randn(size, 3, 8, 8)
        expected = small_net.eval()(images).detach().numpy()
        output = session.run({"image": images.numpy()})["output"]
        bound = {"fp32": 1e-5, "fp16": 5e-3}[precision]
        assert np.linalg.norm(output - expected) <= bound * np.linalg.norm(expected)
    with pytest.raises(exporters.InputError, match=r"batch|shape"):
        session.run({"image": np.zeros((7, 3, 8, 8), np.float32)})
    assert artifact.verified_on == f"onnxruntime {artifact.versions['onnxruntime']} on CPUExecutionProvider"
    assert artifact.parity.batch_sizes == ((1, 3, 6, 4) if dynamic_batch else (1, 1, 1))


def test_several_inputs_and_outputs_keep_names_and_dtypes(tmp_path):
    inputs = {"tokens": torch.randint(0, 7, (2, 5)), "mask": torch.ones(2, 5)}
    artifact = exporters.export(TwoInputs(), inputs, to="onnx", path=tmp_path / "n.onnx", dynamic_batch=True)
    outputs = {spec.name: (spec.shape, spec.dtype) for spec in artifact.outputs}
    assert outputs == {
        "features": (("batch", 5, 4), "float32"),
        "counts": (("batch",), "int64"),
        "any": (("batch", 5), "bool"),
    }
    assert artifact.signature.dimensions == {"batch": DimensionRange(1, 32)}


def test_the_file_is_self_contained_and_describes_itself(small_net, image, tmp_path):
    path = tmp_path / "student.onnx"
    exporters.export(small_net, image, to="onnx", path=path, dynamic_batch=True, metadata={"labels": "cat,dog"})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.onnx", "student.onnx.manifest.json"]
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props}["labels"] == "cat,dog"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert "head.weight" in {tensor.name for tensor in model.graph.initializer}


def test_fp16_halves_the_weights(tmp_path):
    model, example = nn.Linear(256, 256), torch.randn(1, 256)
    full = exporters.export(model, example, to="onnx", path=tmp_path / "full.onnx")
    half = exporters.export(model, example, to="onnx", path=tmp_path / "half.onnx", precision="fp16")
    weights = onnx.load(half.path).graph.initializer
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert half.size_bytes == pytest.approx(full.size_bytes / 2, rel=0.02)
    assert (half.inputs, half.outputs) == (full.inputs, full.outputs)


@pytest.mark.parametrize("scale", [1e4, 1e6])
def test_an_overflow_in_float16_is_caught(tmp_path, scale):
    # At 1e4 only the values between the layers overflow: ONNX Runtime may keep those in float32 and hide it.
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[0].weight.data *= scale
    model[1].weight.data /= scale
    with pytest.raises(ParityError, match=r"output `output`: .* [1-9][0-9]* non-finite"):
        exporters.export(model, 1000 * torch.randn(8, 4), to="onnx", path=tmp_path / "n.onnx", precision="fp16")


def test_a_faulty_conversion_is_caught_and_leaves_no_file(small_net, image, tmp_path, broken_exporter, mistake):
    exporter = broken_exporter(exporter=OnnxExporter(), mistake=mistake)
    with pytest.raises(ParityError, match=r"1 of 1 outputs differ:\n  output `output`"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "student.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_changed_in_the_file_is_caught(small_net, image, tmp_path, broken_exporter):
    def damage(path):
        model = onnx.load(path)
        (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values[1, 2] += 0.01
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)

    with pytest.raises(ParityError, match=r"output `output`"):
        exporters.export(
            small_net, image, to=broken_exporter(exporter=OnnxExporter(), damage=damage), path=tmp_path / "n.onnx"
        )


def test_a_file_that_forgot_its_range_is_refused(small_net, image, tmp_path, broken_exporter):
    def damage(path):
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        onnx.save(model, path)

    exporter = broken_exporter(exporter=OnnxExporter(), damage=damage)
    with pytest.raises(ConversionError, match=r"input `image` of the file must be float32 of shape"):
        exporters.export(small_net, image, to=exporter, path=tmp_path / "n.onnx", dynamic_batch=True)


def test_adapters_of_a_running_distillation_are_left_out(small_net, image, tmp_path):
    small_net._kd_adapters = nn.Linear(5, 1000)
    artifact = exporters.export(small_net, image, to="onnx", path=tmp_path / "student.onnx")
    assert not [tensor.name for tensor in onnx.load(artifact.path).graph.initializer if "adapters" in tensor.name]


def test_effective_settings_are_read_back(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="onnx", path=tmp_path / "student.onnx", precision="fp16")
    properties = exporters.load(artifact, threads=1).properties
    assert properties["threads"] == 1
    assert properties["spinning"] == "0"
    assert properties["active_precision"] == "fp16"
    assert (properties["runtime"], properties["device"]) == ("onnxruntime", "CPUExecutionProvider")


@pytest.mark.parametrize("opset", [17, 99])
def test_an_unknown_opset_is_refused(opset):
    with pytest.raises(ValueError, match=rf"`opset` must be None or from 18 to [0-9]+, got {opset}"):
        OnnxExporter(opset=opset)


def test_a_failure_while_it_runs_names_the_inputs(tmp_path):
    artifact = exporters.export(nn.Embedding(3, 2), torch.tensor([0, 2]), to="onnx", path=tmp_path / "n.onnx")
    with pytest.raises(
        ExportError, match=r"run on `input` of shape \(2,\), but ONNX Runtime failed: .*out of data bounds"
    ):
        exporters.load(artifact).run({"input": np.array([0, 3])})

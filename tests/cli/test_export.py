"""`export`: files, figures and errors."""

import json
from argparse import ArgumentTypeError

import numpy as np
import pytest
import torch

import exporters
from lightning_kd.cli._inputs import dimension
from lightning_kd.models import load_model


def test_writes_every_format_and_prints_their_manifests(run, project, tmp_path):
    arguments = ("--to", "onnx", "openvino", "--output", "out", "--input-shape", 1, 1, 4, 4, "--json")
    status, out, err = run("export", f"{project}:network,width=8", *arguments)
    assert status == 0, err
    documents = json.loads(out)["artifacts"]
    assert [document["path"] for document in documents] == ["out/network-fp32.onnx", "out/network-fp32.xml"]
    assert all(document["parity"]["outputs"][0]["max_abs_of_range"] < 1e-4 for document in documents)
    for document in documents:
        assert exporters.Artifact.read(tmp_path / document["path"]).metadata["model"] == f"{project}:network,width=8"


def test_prints_a_table_of_parity_figures(run, project):
    status, out, _ = run("export", f"{project}:network", "--to", "onnx", "--output", ".", "--input-shape", 1, 1, 4, 4)
    assert status == 0
    assert "network-fp32.onnx" in out
    assert "100.0%" in out


def test_exports_the_weights_of_a_checkpoint(run, project, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    network = load_model(f"{project}:network,width=8")
    torch.save({"state_dict": {f"net.{key}": value for key, value in network.state_dict().items()}}, "student.ckpt")
    arguments = ("--to", "onnx", "--output", "out", "--name", "student", "--input-shape", 1, 1, 4, 4)
    status, _, err = run("export", f"{project}:network,width=8", "--checkpoint", "student.ckpt", *arguments)
    assert status == 0, err
    x = torch.randn(1, 1, 4, 4)
    outputs = exporters.load(tmp_path / "out" / "student-fp32.onnx").run({"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs["output"]), network(x).detach(), rtol=1e-5, atol=1e-6)


def test_dynamic_batch_accepts_several_sizes(run, project, tmp_path):
    arguments = ("--to", "openvino", "--output", ".", "--input-shape", 1, 1, 4, 4, "--dynamic-batch")
    status, _, err = run("export", f"{project}:network", *arguments)
    assert status == 0, err
    session = exporters.load(tmp_path / "network-fp32.xml")
    for size in (1, 3, 32):
        assert session.run({"input": torch.randn(size, 1, 4, 4).numpy()})["output"].shape == (size, 3)


@pytest.fixture
def samples(tmp_path):
    """Forty inputs with labels, in one file."""
    inputs = np.random.default_rng(0).standard_normal((40, 1, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", input=inputs, labels=np.arange(40) % 3)
    return "samples.npz"


def test_int8_shows_what_is_active_and_what_was_lost(run, project, samples):
    arguments = ("--to", "onnx", "--output", "out", "--input-shape", 1, 1, 4, 4, "--precision", "int8")
    data = ("--calibration", samples, "--evaluation", samples, "--quantization.samples", 20, "--max-drop", 1)
    status, out, err = run("export", f"{project}:network", *arguments, *data, "--json")
    assert status == 0, err
    (document,) = json.loads(out)["artifacts"]
    assert document["quantization"]["calibration"]["count"] == 20
    assert document["task"]["samples"] == 40
    assert document["audit"]["operators"]
    status, out, _ = run("export", f"{project}:network", *arguments, *data)
    assert status == 0
    assert "int8" in out
    assert "left in float" in out


def test_options_of_a_runtime_are_those_of_its_exporter(run, project, tmp_path):
    arguments = ("--to", "onnx", "--output", "out", "--input-shape", 1, 1, 4, 4)
    status, _, err = run("export", f"{project}:network", *arguments, "--onnx.opset", 18)
    assert status == 0, err
    assert exporters.Artifact.read(tmp_path / "out" / "network-fp32.onnx").options["opset"] == 18


def test_dimensions_are_dynamic_by_name(run, project, tmp_path):
    shape = ("--input-shape", "batch", 1, 4, 4, "--dynamic", "batch=1:2:8")
    status, _, err = run("export", f"{project}:network", "--to", "onnx", "--output", ".", *shape)
    assert status == 0, err
    signature = exporters.Artifact.read(tmp_path / "network-fp32.onnx").signature
    assert signature.dimensions["batch"] == exporters.DimensionRange(1, 8, optimum=2)


def test_several_runtimes_go_into_one_bundle(run, project, tmp_path):
    arguments = ("--to", "onnx", "openvino", "--bundle", "student.zip", "--input-shape", 1, 1, 4, 4)
    status, _, err = run("export", f"{project}:network", *arguments)
    assert status == 0, err
    opened = exporters.open_bundle(tmp_path / "student.zip", folder=tmp_path / "student")
    assert sorted(opened.artifacts) == ["onnx-fp32", "openvino-fp32"]
    assert opened.card.name == "network"


def test_published_preprocessing_goes_into_the_file(run, project, tmp_path):
    arguments = ("--to", "onnx", "--output", ".", "--input-shape", 1, 3, 32, 32, "--preprocessing", "timm")
    status, _, err = run("export", "timm:resnet10t,num_classes=3", *arguments)
    assert status == 0, err
    artifact = exporters.Artifact.read(tmp_path / "resnet10t-fp32.onnx")
    assert artifact.inputs == (exporters.TensorSpec("image", (1, 32, 32, 3), "uint8"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch=1:8", exporters.DimensionRange(1, 8)),
        ("time=8000:16000:160000*320", exporters.DimensionRange(8000, 160000, optimum=16000, multiple=320)),
    ],
)
def test_a_range_is_read_from_text(text, expected):
    assert dimension(text) == (text.partition("=")[0], expected)


@pytest.mark.parametrize("text", ["batch", "batch=1", "batch=a:b", "1=1:2", "batch=1:2:3:4"])
def test_text_that_is_no_range_is_refused(text):
    with pytest.raises(ArgumentTypeError, match=f"must be NAME=MIN:MAX, .*, got {text!r}"):
        dimension(text)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["timm:resnet19", "--to", "onnx", "--output", "out"], 1, "the nearest names are 'resnet18'"),
        (["timm:resnet18", "--to", "tflite", "--output", "out"], 2, "invalid choice: 'tflite'"),
        (["timm:resnet18", "--to", "onnx"], 2, "exactly one of --output and --bundle is required"),
        (["timm:resnet18", "--to", "onnx", "--output", "out", "--input-shape", "0"], 2, "whole number above 0"),
        (
            ["PROJECT:network", "--to", "onnx", "--output", "file", "--input-shape", "1"],
            1,
            "`--output` must be a folder that can be written",
        ),
        (["PROJECT:network", "--to", "onnx", "--output", "out"], 1, "`--input-shape` must be given for Sequential"),
        (["PROJECT:not_a_network", "--to", "onnx", "--output", "out"], 1, "must return a torch.nn.Module, got str"),
        (["PROJECT:netwrk", "--to", "onnx", "--output", "out"], 1, "got 'netwrk'; the nearest names are 'network'"),
        (["PROJECT:network", "--to", "onnx", "--output", "out", "--checkpoint", "no.pt"], 1, "`checkpoint` must be"),
        (["PROJECT:network", "--to", "onnx", "--output", "out", "--pretrained"], 1, "`pretrained` applies to timm"),
    ],
)
def test_wrong_arguments_end_in_one_line_and_write_nothing(run, project, tmp_path, arguments, status, message):
    (tmp_path / "file").write_text("in the way")
    found, out, err = run("export", *(argument.replace("PROJECT", project) for argument in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert err.startswith("lightning-kd export: error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()

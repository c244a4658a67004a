"""`export`: files, figures and errors."""

import json

import pytest
import torch

import exporters
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


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["timm:resnet19", "--to", "onnx", "--output", "out"], 1, "the nearest names are 'resnet18'"),
        (["timm:resnet18", "--to", "tflite", "--output", "out"], 2, "invalid choice: 'tflite'"),
        (["timm:resnet18", "--to", "onnx"], 2, "required: output"),
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

"""A bundle holds a network for several runtimes, runs without this project, and notices what was changed."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import exporters

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:openvino")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One bundle for ONNX Runtime and OpenVINO."""
    samples = [(torch.randn(4), index % 3) for index in range(6)]
    return exporters.bundle(
        network(),
        torch.randn(2, 4),
        to=["onnx", ("openvino", "fp16"), "openvino"],
        path=tmp_path_factory.mktemp("made") / "student.bundle",
        dynamic_batch=(1, 4),
        evaluation=samples,
        card=exporters.ModelCard(name="tiny", data="random points", teacher="none"),
        metadata={"labels": "a b c"},
    )


@pytest.fixture
def copied(made, tmp_path):
    """The same bundle, to be damaged."""
    import shutil

    return Path(shutil.copytree(made.path, tmp_path / "copy.bundle"))


def test_it_holds_every_runtime_and_precision(made):
    assert sorted(made.artifacts) == ["onnx-fp32", "openvino-fp16", "openvino-fp32"]
    names = {path.name for path in made.path.iterdir()}
    assert names == {"README.md", "SHA256SUMS", "bundle.json", "run.py", *made.artifacts}
    assert exporters.open_bundle(made.path) == made


def test_its_artifacts_compute_what_the_network_does(made):
    x = torch.randn(3, 4)
    for artifact in made.artifacts.values():
        output = exporters.load(artifact).run({"input": x.numpy()})["output"]
        np.testing.assert_allclose(output, network()(x).detach().numpy(), rtol=1e-2, atol=1e-3)


def test_the_network_is_captured_once(tmp_path, monkeypatch):
    calls = []
    original = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **rest: calls.append(1) or original(*args, **rest))
    exporters.bundle(network(), torch.randn(1, 4), to=["onnx", "openvino"], path=tmp_path / "n.bundle")
    assert calls == [1]


def test_the_model_card_has_what_was_said_and_what_was_measured(made):
    card = (made.path / "README.md").read_text()
    assert card.startswith("# tiny\n")
    assert "- **data**: random points" in card
    assert "- **licence**: not stated" in card
    assert "| `onnx-fp32/model.onnx` | onnx | fp32 |" in card
    assert "6 samples" in card
    assert "- **labels**: a b c" in card
    assert "- input `input`: float32 (batch, 4)" in card


@pytest.mark.parametrize("name", ["onnx-fp32/model.onnx", "openvino-fp32/model.xml"])
def test_its_runner_needs_nothing_of_this_project(made, tmp_path, name):
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    np.savez(tmp_path / "in.npz", input=x)
    arguments = ["run.py", name, "--inputs", str(tmp_path / "in.npz"), "--outputs", str(tmp_path / "out.npz")]
    code = (
        "import runpy, sys; sys.modules['exporters'] = sys.modules['lightning_kd'] = None; "
        f"sys.argv = {arguments!r}; runpy.run_path('run.py', run_name='__main__')"
    )
    done = run_python("-W", "ignore", "-c", code, folder=made.path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("output: float32 (2, 3)")
    with np.load(tmp_path / "out.npz") as outputs:
        expected = network()(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(outputs["output"], expected, rtol=2e-2, atol=2e-2)


def test_its_runner_refuses_a_changed_file(copied):
    file = copied / "onnx-fp32" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    done = run_python("run.py", "onnx-fp32/model.onnx", folder=copied)
    assert done.returncode == 1
    assert "model.onnx was changed" in done.stderr


def run_python(*arguments, folder):
    """Python without the working directory and PYTHONPATH among the places of modules."""
    command = [sys.executable, "-I", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def append_byte(file):
    file.write_bytes(file.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (
            lambda folder: append_byte(folder / "onnx-fp32" / "model.onnx"),
            "`onnx-fp32/model.onnx` must be as SHA256SUMS",
        ),
        (lambda folder: append_byte(folder / "README.md"), "`README.md` must be as SHA256SUMS says"),
        (lambda folder: append_byte(folder / "run.py"), "`run.py` must be as SHA256SUMS says"),
        (lambda folder: (folder / "run.py").unlink(), "run.py is missing from"),
        (lambda folder: (folder / "weights.pkl").write_bytes(b"x"), "weights.pkl was added to"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "link was added to"),
        (lambda folder: (folder / "SHA256SUMS").unlink(), "must be a bundle with SHA256SUMS in it"),
    ],
)
def test_tampering_is_noticed(copied, tamper, message):
    tamper(copied)
    with pytest.raises(exporters.ArtifactError, match=message):
        exporters.open_bundle(copied)


def test_the_hash_vouches_for_a_list_that_was_changed_along(copied, made):
    import hashlib

    card = copied / "README.md"
    old = hashlib.sha256(card.read_bytes()).hexdigest()
    append_byte(card)
    sums = copied / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(card.read_bytes()).hexdigest()))
    assert exporters.open_bundle(copied).sha256 != made.sha256


def test_a_bundle_of_another_schema_is_refused(copied):
    import hashlib

    index, sums = copied / "bundle.json", copied / "SHA256SUMS"
    old = hashlib.sha256(index.read_bytes()).hexdigest()
    index.write_text(json.dumps(json.loads(index.read_text()) | {"schema_version": 99}))
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(index.read_bytes()).hexdigest()))
    with pytest.raises(exporters.ArtifactError, match=r"`schema_version` of .* must be 1, got 99"):
        exporters.open_bundle(copied)


def test_an_archive_is_unpacked_into_a_new_folder(tmp_path):
    path = tmp_path / "student.zip"
    made = exporters.bundle(network(), torch.randn(1, 4), to=["onnx"], path=path)
    assert [file.name for file in tmp_path.iterdir()] == ["student.zip"]
    opened = exporters.open_bundle(path, folder=tmp_path / "student")
    assert opened.sha256 == made.sha256
    assert exporters.load(opened.artifacts["onnx-fp32"]).inputs == made.artifacts["onnx-fp32"].inputs
    with pytest.raises(exporters.PathError, match="`folder` must be new"):
        exporters.open_bundle(path, folder=tmp_path / "student")
    with pytest.raises(exporters.PathError, match=r"`folder` must say where student\.zip is unpacked"):
        exporters.open_bundle(path)


def test_an_archive_writes_nothing_outside_of_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped", "x")
    with pytest.raises(exporters.ArtifactError, match="must be a bundle with SHA256SUMS"):
        exporters.open_bundle(tmp_path / "bad.zip", folder=tmp_path / "bad")
    assert not (tmp_path / "escaped").exists()
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(exporters.ArtifactError, match="must be a bundle's folder or archive"):
        exporters.open_bundle(tmp_path / "text.zip", folder=tmp_path / "text")


def test_if_one_export_fails_nothing_is_written_and_the_old_bundle_stays(tmp_path, broken_exporter):
    from exporters.onnx import OnnxExporter

    path = tmp_path / "student.bundle"
    first = exporters.bundle(network(), torch.randn(1, 4), to=["onnx"], path=path)

    def scale(module):
        module[0].weight.data *= 1.1
        return module

    broken = broken_exporter(exporter=OnnxExporter(), mistake=scale)
    with pytest.raises(exporters.ParityError, match="first divergence in layer `0`"):
        exporters.bundle(network(), torch.randn(1, 4), to=["openvino", broken], path=path)
    assert exporters.open_bundle(path) == first
    assert os.listdir(tmp_path) == ["student.bundle"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"path": "student.tar"}, exporters.PathError, r"must end in '\.bundle' or '\.zip', got 'student\.tar'"),
        ({"to": []}, ValueError, "`to` must name at least one format, got none"),
        ({"to": ["onnx", "onnx"]}, ValueError, "once, got onnx-fp32 twice"),
        ({"to": ["tflite"]}, ValueError, "`to` must be one of .*, got 'tflite'"),
        (
            {"to": ["openvino", ("onnx", "bf16")]},
            exporters.ConversionError,
            "`precision` must be one of .* for onnx, got 'bf16'",
        ),
    ],
)
def test_impossible_bundles_are_refused_before_anything_is_written(tmp_path, options, error, message):
    given = {"to": ["onnx"], "path": "student.bundle"} | options
    with pytest.raises(error, match=message):
        exporters.bundle(network(), torch.randn(1, 4), to=given["to"], path=tmp_path / given["path"])
    assert list(tmp_path.iterdir()) == []

import pytest
import torch
from torch import nn

import exporters
from exporters.errors import ArtifactError
from exporters.metadata import ModelMetadata, read_metadata
from exporters.quiet import errors_only

GIVEN = ModelMetadata(
    name="student",
    task="image-classification",
    labels=("cat", "dog"),
    teacher='teacher <&> "quotes"',
    recipe="dkd",
    checkpoint_sha256="0123456789abcdef" * 4,
    licences={"weights": "Apache-2.0", "data": "CC-BY-4.0"},
    extra={"author": "me"},
)
SUFFIXES = {"coreai": ".aimodel", "coreml": ".mlpackage", "executorch": ".pte", "onnx": ".onnx", "openvino": ".xml"}


@pytest.mark.parametrize("to", SUFFIXES)
def test_every_format_carries_the_metadata_itself(tmp_path, to):
    path = tmp_path / f"student{SUFFIXES[to]}"
    artifact = exporters.export(nn.Linear(3, 2), torch.randn(1, 3), to=to, path=path, metadata=GIVEN)
    found = read_metadata(path)
    for name in ("name", "task", "labels", "teacher", "recipe", "checkpoint_sha256", "licences", "extra"):
        assert getattr(found, name) == getattr(GIVEN, name)
    assert (found.precision, found.versions) == ("fp32", artifact.versions)
    assert [(each.name, each.shape, each.dtype) for each in found.inputs] == [("input", (1, 3), "float32")]
    assert found.parity == (() if artifact.parity is None else artifact.parity.outputs)
    assert artifact.metadata["author"] == "me"
    artifact.manifest_path.unlink()
    with errors_only("coremltools"):
        alone = read_metadata(path)
    assert alone.parity == ()
    assert alone.licences == found.licences


def test_a_format_that_carries_none_is_read_from_its_manifest(tmp_path):
    artifact = exporters.export(nn.ReLU(), torch.randn(1, 2), to="onnx", path=tmp_path / "n.onnx", metadata=GIVEN)
    engine = tmp_path / "n.engine"
    manifest = artifact.manifest_path.read_text().replace("n.onnx", "n.engine")
    artifact.path.rename(engine)
    (tmp_path / "n.engine.manifest.json").write_text(manifest)
    assert read_metadata(engine).labels == ("cat", "dog")
    (tmp_path / "n.engine.manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"or have a manifest beside it, got .*n\.engine without"):
        read_metadata(engine)


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".mlpackage", ".aimodel"])
def test_a_file_that_is_missing_is_named(tmp_path, suffix):
    with pytest.raises(ArtifactError, match=rf"must be a file that exists, got .*n\{suffix}"):
        read_metadata(tmp_path / f"n{suffix}")


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".pte"])
def test_a_file_of_another_kind_is_named(tmp_path, suffix):
    path = tmp_path / f"n{suffix}"
    path.write_bytes(b"\x01nothing of the kind")
    with pytest.raises(ArtifactError, match=rf"must be an .* file, got .*n\{suffix}"):
        read_metadata(path)


def test_a_file_without_metadata_is_named(tmp_path):
    folder = tmp_path / "n.aimodel"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"assetVersion": "2.0"}')
    with pytest.raises(ArtifactError, match=r"must be a file with metadata, got .*n\.aimodel without"):
        read_metadata(folder)

import hashlib
import json
from pathlib import Path

import pytest

from exporters.artifact import Artifact, manifest_path, record_files, sha256_of
from exporters.errors import ArtifactError
from exporters.parity import TOLERANCES, OutputParity, ParityReport
from exporters.signature import DimensionRange, Signature, TensorSpec


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    path = tmp_path / "student.xml"
    path.write_bytes(b"graph")
    (tmp_path / "student.bin").write_bytes(b"weights")
    figures = OutputParity(
        name="output",
        max_abs=1e-6,
        max_abs_of_range=1e-7,
        relative_l2=1e-7,
        cosine=1.0,
        nonfinite=0,
        argmax_agreement=1.0,
    )
    artifact = Artifact(
        path=path,
        files=record_files(tmp_path, ("student.xml", "student.bin")),
        format="openvino",
        precision="fp32",
        signature=Signature(
            inputs=(TensorSpec("x", ("batch", 3), "float32"),),
            outputs=(TensorSpec("output", ("batch", 2), "float32"),),
            dimensions={"batch": DimensionRange(1, 8)},
        ),
        options={"opset": None},
        versions={"torch": "2.0"},
        verified_on="a runtime",
        parity=ParityReport(outputs=(figures,), tolerance=TOLERANCES["fp32"], batch_sizes=(1, 5, 8)),
        notes=("a note",),
        metadata={"labels": "cat,dog"},
    )
    artifact.manifest_path.write_text(artifact.to_json())
    return artifact


def test_reading_gives_back_what_was_written(artifact):
    assert Artifact.read(artifact.path) == artifact
    assert Artifact.read(str(artifact.manifest_path)) == artifact


def test_the_folder_may_move(artifact, tmp_path):
    moved = tmp_path.with_name(tmp_path.name + "_moved")
    tmp_path.rename(moved)
    assert Artifact.read(moved / "student.xml").path == moved / "student.xml"


def test_sizes_and_hashes_are_those_of_the_files(artifact):
    assert artifact.size_bytes == len(b"graph") + len(b"weights")
    assert artifact.files[1].sha256 == hashlib.sha256(b"weights").hexdigest()
    lines = f"{hashlib.sha256(b'graph').hexdigest()}  student.xml\n{artifact.files[1].sha256}  student.bin\n"
    assert artifact.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_manifests_of_two_formats_with_one_stem_differ():
    assert manifest_path(Path("student.onnx")) != manifest_path(Path("student.xml"))


def test_a_folder_stands_for_all_its_files_in_a_fixed_order(tmp_path):
    (tmp_path / "student.mlpackage" / "Data").mkdir(parents=True)
    for name in ("b", "Data/a"):
        (tmp_path / "student.mlpackage" / name).write_bytes(name.encode())
    names = [record.name for record in record_files(tmp_path, ("student.mlpackage",))]
    assert names == ["student.mlpackage/Data/a", "student.mlpackage/b"]


def test_a_changed_file_is_named(artifact):
    (artifact.path.parent / "student.bin").write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match=r"`student.bin` must be as it was exported"):
        Artifact.read(artifact.path)


def test_a_missing_file_is_named(artifact):
    (artifact.path.parent / "student.bin").unlink()
    with pytest.raises(ArtifactError, match=r"`student.bin` must lie beside its manifest"):
        Artifact.read(artifact.path)


def test_a_missing_manifest_is_named(artifact):
    artifact.manifest_path.unlink()
    with pytest.raises(ArtifactError, match=r"got no .*student.xml.manifest.json"):
        Artifact.read(artifact.path)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_another_schema_version_is_refused(artifact, version):
    content = json.loads(artifact.manifest_path.read_text()) | {"schema_version": version}
    artifact.manifest_path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=f"must be 2, got {version!r}"):
        Artifact.read(artifact.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_what_is_not_a_manifest_is_refused(artifact, text):
    artifact.manifest_path.write_text(text)
    with pytest.raises(ArtifactError, match=r"student\.xml\.manifest\.json"):
        Artifact.read(artifact.path)


@pytest.mark.parametrize("key", ["files", "signature", "parity"])
def test_a_manifest_that_lacks_a_field_is_refused(artifact, key):
    content = json.loads(artifact.manifest_path.read_text())
    del content[key]
    artifact.manifest_path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"written by exporters\.export, got .*student"):
        Artifact.read(artifact.path)


def test_the_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()

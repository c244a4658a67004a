"""Build, audit, refit and session against a stand-in for TensorRT: our half of the conversation."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

import exporters
from exporters.artifact import manifest_path
from exporters.errors import ArtifactError, ConversionError, ExportError, PlatformError
from exporters.profiling.layers import profile_layers
from exporters.tensorrt.build import build_engine
from exporters.tensorrt.exporter import TensorRTExporter
from exporters.tensorrt.options import BuildError, BuildOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory, make_small_net):
    """A network in float16 with a batch of 1 to 4, and what PyTorch computes for three images."""
    torch.manual_seed(0)
    network, images = make_small_net().eval(), torch.randn(3, 3, 8, 8)
    path = tmp_path_factory.mktemp("exported") / "student.tensorrt"
    exporter = TensorRTExporter(build="never")
    exporters.export(network, images, to=exporter, path=path, precision="fp16", dynamic_batch=(1, 4))
    return path, images.numpy(), network(images).detach().numpy()


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of the export, with its manifest."""
    path = exported[0]
    shutil.copytree(path, tmp_path / path.name)
    shutil.copy(exporters.Artifact.read(path).manifest_path, tmp_path)
    return tmp_path / path.name


def with_options(folder, **options):
    specification = json.loads((folder / "build.json").read_text())
    specification["options"].update(options)
    (folder / "build.json").write_text(json.dumps(specification))
    return folder


def described(folder):
    """The export with a manifest that knows nothing of its build.json, which was changed."""
    manifest = manifest_path(folder)
    content = json.loads(manifest.read_text())
    content["files"] = [record for record in content["files"] if not record["name"].endswith("build.json")]
    manifest.write_text(json.dumps(content))
    return folder


def test_a_build_leaves_engine_record_layers_and_timing_cache(folder, tensorrt):
    record = build_engine(folder)
    assert json.loads((folder / "model.engine.json").read_text()) == record
    assert record["tensorrt"] == tensorrt.__version__
    assert record["device"]["compute_capability"] == "8.7"
    assert record["size_bytes"] == (folder / "model.engine").stat().st_size
    assert record["profiles"] == {"image": {"min": [1, 3, 8, 8], "opt": [3, 3, 8, 8], "max": [4, 3, 8, 8]}}
    assert record["audit"]["operators"] == {"float16": 2}
    assert (folder / f"timing-{tensorrt.__version__}-stand-in-gpu.cache").read_bytes().startswith(b"this device")
    assert len(json.loads((folder / "model.layers.json").read_text())["Layers"]) >= 2
    assert not list(folder.glob("*.part"))


def test_networks_are_strongly_typed_without_tf32_and_described_in_detail(folder, tensorrt):
    build_engine(folder)
    (built,) = tensorrt.BUILT
    assert built["network_flags"] == 1 << tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert built["flags"] == []
    assert built["profiling_verbosity"] == "DETAILED"
    assert built["builder_optimization_level"] == 3
    assert built["profile"] == {"image": [[1, 3, 8, 8], [3, 3, 8, 8], [4, 3, 8, 8]]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tf32": True}, {"flags": ["TF32"]}),
        ({"version_compatible": True}, {"flags": ["VERSION_COMPATIBLE"]}),
        ({"weights": "refittable"}, {"flags": ["REFIT"]}),
        ({"weights": "stripped"}, {"flags": ["REFIT_IDENTICAL", "STRIP_PLAN"]}),
        ({"sparse_weights": True}, {"flags": ["SPARSE_WEIGHTS"]}),
        ({"workspace_bytes": 4096}, {"pools": {"WORKSPACE": 4096}}),
        ({"optimization_level": 5}, {"builder_optimization_level": 5}),
        ({"hardware": "ampere_plus"}, {"hardware_compatibility_level": "AMPERE_PLUS"}),
        ({"hardware": "same_compute_capability"}, {"hardware_compatibility_level": "SAME_COMPUTE_CAPABILITY"}),
    ],
)
def test_every_option_reaches_the_builder(folder, tensorrt, options, expected):
    build_engine(with_options(folder, **options))
    (built,) = tensorrt.BUILT
    assert {name: built[name] for name in expected} == expected


def test_a_dla_takes_the_layers_and_the_gpu_the_rest(folder, tensorrt):
    tensorrt.CORES = 2
    build_engine(with_options(folder, dla_core=1))
    (built,) = tensorrt.BUILT
    assert (built["default_device_type"], built["DLA_core"]) == ("DLA", 1)
    assert built["flags"] == ["GPU_FALLBACK"]
    assert built["parser_flags"] == ["ADJUST_FOR_DLA"]


def test_a_dla_that_is_not_there_is_named(folder, tensorrt):
    with pytest.raises(BuildError, match=r"`dla_core` must be below 0, the cores of this device, got 1"):
        build_engine(with_options(folder, dla_core=1))


def test_a_timing_cache_is_used_again_and_one_of_another_device_refused(folder, tensorrt, tmp_path):
    cache = tmp_path / "shared.cache"
    for _ in range(2):
        record = build_engine(with_options(folder, timing_cache=str(cache)))
    assert record["timing_cache"]["path"] == str(cache)
    cache.write_bytes(b"another device")
    with pytest.raises(BuildError, match=r"shared.cache must be of this TensorRT and GPU"):
        build_engine(folder)


def test_an_operator_that_the_parser_lacks_is_named(folder, tensorrt):
    tensorrt.UNSUPPORTED = {"Conv"}
    with pytest.raises(BuildError, match=r"but Conv `.*`: no importer is registered. It does not support: Conv `"):
        build_engine(folder)
    assert not (folder / "model.engine").exists()


def test_shapes_that_are_refused_are_named(folder, tensorrt):
    specification = json.loads((folder / "build.json").read_text())
    specification["profiles"]["image"]["min"] = [9, 3, 8, 8]
    (folder / "build.json").write_text(json.dumps(specification))
    with pytest.raises(BuildError, match=r"must take the shapes .*\[9, 3, 8, 8\].*but it refused them"):
        build_engine(folder)


def test_an_engine_that_silently_computes_in_float32_is_not_kept(folder, tensorrt):
    tensorrt.SILENT = "Float"
    with pytest.raises(BuildError, match=r"must compute in fp16, .*: 2 in float32"):
        build_engine(folder)
    assert not (folder / "model.engine").exists()


def test_a_build_that_fails_leaves_the_earlier_engine(folder, tensorrt):
    build_engine(folder)
    before = (folder / "model.engine").read_bytes()
    tensorrt.SILENT = "Float"
    with pytest.raises(BuildError, match="float32"):
        build_engine(folder)
    assert (folder / "model.engine").read_bytes() == before


@pytest.mark.parametrize("weights", ["embedded", "refittable", "stripped"])
def test_the_engine_runs_at_every_size(exported, folder, tensorrt, weights):
    _, images, expected = exported
    build_engine(with_options(folder, weights=weights))
    session = exporters.load(described(folder))
    for size in (3, 1, 2):
        output = session.run({"image": images[:size]})["output"]
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected[:size], rtol=0, atol=5e-3 * np.abs(expected).max())
    assert session.properties == {
        "runtime": "tensorrt",
        "runtime_version": tensorrt.__version__,
        "device": "Stand-in GPU",
        "threads": 1,
        "active_precision": "fp16",
    }


def test_layers_are_timed_by_module(folder, tensorrt):
    build_engine(folder)
    found = profile_layers(described(folder), batch_size=1, runs=2)
    names = [node.name for node in onnx.load(folder / "model.onnx").graph.node]
    assert [layer.name for layer in found.layers] == names
    assert [layer.module for layer in found.layers] == [name.partition("/")[0] for name in names]
    assert {layer.time_ms for layer in found.layers} == {0.25}


def test_a_stripped_engine_has_no_weights(folder, tensorrt):
    sizes = {}
    for weights in ("embedded", "stripped"):
        sizes[weights] = build_engine(with_options(folder, weights=weights))["size_bytes"]
    assert sizes["stripped"] < sizes["embedded"] - (folder / "model.onnx").stat().st_size / 2


def test_device_memory_is_given_back(folder, tensorrt, exported):
    build_engine(folder)
    cuda = sys.modules["cuda.bindings.runtime"]
    session = exporters.load(folder)
    session.run({"image": exported[1]})
    assert (len(cuda.held), cuda.streams) == (2, 1)
    del session
    assert (len(cuda.held), cuda.streams) == (0, 0)


def test_too_little_device_memory_is_said(folder, tensorrt, exported):
    build_engine(folder)
    sys.modules["cuda.bindings.runtime"].largest_bytes = 100
    with pytest.raises(PlatformError, match=r"CUDA says: out of memory"):
        exporters.load(folder).run({"image": exported[1]})


def test_an_engine_must_be_there_and_be_of_this_graph(folder, tensorrt):
    with pytest.raises(ArtifactError, match=r"without model.engine; run: python .*build.py"):
        exporters.load(folder)
    build_engine(folder)
    (folder / "model.engine").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"must have been built from the model.onnx beside it"):
        exporters.load(folder)


def test_an_engine_of_another_version_is_refused_unless_it_is_compatible(folder, tensorrt, exported):
    build_engine(folder)
    built_with = tensorrt.__version__
    tensorrt.__version__ = f"{built_with}.1"
    with pytest.raises(ArtifactError, match=rf"must fit TensorRT {built_with}.1 and this GPU"):
        exporters.load(folder)
    tensorrt.__version__ = built_with
    build_engine(with_options(folder, version_compatible=True))
    tensorrt.__version__ = f"{built_with}.1"
    assert exporters.load(described(folder)).run({"image": exported[1]})["output"].shape == (3, 5)


def test_export_builds_and_verifies_the_engine_where_it_can(small_net, image, tmp_path, tensorrt):
    artifact = exporters.export(small_net, image, to="tensorrt", path=tmp_path / "n.tensorrt", precision="fp16")
    assert artifact.notes == ()
    assert artifact.details["engine"]["tensorrt"] == tensorrt.__version__
    assert artifact.verified_on.startswith(f"tensorrt {tensorrt.__version__} on Stand-in GPU and onnxruntime")
    assert artifact.audit.operators == {"float16": 2}
    assert "n.tensorrt/model.engine" in {record.name for record in artifact.files}
    assert exporters.load(artifact).run({"image": image.numpy()})["output"].shape == (1, 5)


def test_export_refuses_a_silently_wide_engine_and_leaves_nothing(small_net, image, tmp_path, tensorrt):
    tensorrt.SILENT = "Float"
    with pytest.raises(ConversionError, match=r"must compute in fp16"):
        exporters.export(small_net, image, to="tensorrt", path=tmp_path / "n.tensorrt", precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_refuses_a_shape_is_said(folder, tensorrt, exported):
    specification = json.loads((folder / "build.json").read_text())
    specification["profiles"]["image"].update(opt=[1, 3, 8, 8], max=[2, 3, 8, 8])
    (folder / "build.json").write_text(json.dumps(specification))
    build_engine(folder)
    with pytest.raises(ExportError, match=r"must take `image` of shape \(3, 3, 8, 8\), but it does not"):
        exporters.load(described(folder)).run({"image": exported[1]})


def test_the_gpu_is_described_by_the_driver(tmp_path):
    source = tmp_path / "cuda.c"
    source.write_text(
        "#include <string.h>\n"
        "int cuInit(unsigned f) { return 0; }\n"
        "int cuDeviceGet(int *d, int i) { *d = i; return 0; }\n"
        'int cuDeviceGetName(char *n, int s, int d) { strncpy(n, "Small GPU", s); return 0; }\n'
        "int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : 7; return 0; }\n"
        "int cuDriverGetVersion(int *v) { *v = 13020; return 0; }\n"
    )
    command = ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source]
    subprocess.run(command, check=True)
    code = "from exporters.tensorrt.engine import describe_device; print(describe_device())"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    expected = {"name": "Small GPU", "compute_capability": "8.7", "cuda_driver": 13020}
    assert finished.stdout.strip() == str(expected)


def test_options_of_the_specification_are_those_of_the_class(folder):
    assert BuildOptions(**json.loads((folder / "build.json").read_text())["options"]) == BuildOptions()

import copy
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.onnx import OnnxExporter
from exporters.runtimes import EXPORTERS, SESSIONS, import_runtime

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:openvino")


def test_every_public_name_exists_and_the_list_is_sorted():
    assert exporters.__all__ == sorted(exporters.__all__)
    assert all(hasattr(exporters, name) for name in exporters.__all__)


@pytest.mark.parametrize("name", sorted(EXPORTERS))
def test_every_exporter_keeps_the_protocol_and_has_tests(name):
    exporter = import_runtime(EXPORTERS, name)()
    assert exporter.format == name
    assert exporter.suffix.startswith(".")
    assert "torch" in exporter.versions
    assert name in SESSIONS
    assert any((Path(__file__).parent / path).is_file() for path in (f"test_{name}.py", f"{name}/test_exporter.py"))
    assert type(exporter).__dataclass_params__.frozen
    assert not hasattr(exporter, "__dict__")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_neither_torch_nor_a_runtime():
    heavy = ("torch", "lightning", "lightning_kd", "onnx", "onnxruntime", "openvino", "coremltools")
    assert run(f"import sys, exporters; print([name for name in {heavy} if name in sys.modules])") == "[]\n"


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_artifact_is_served_without_torch(small_net, image, tmp_path, to, suffix):
    artifact = exporters.export(small_net, image, to=to, path=tmp_path / f"student{suffix}")
    code = (
        "import sys, numpy, exporters; "
        f"session = exporters.load({str(artifact.path)!r}); "
        "output = session.run({'image': numpy.zeros((1, 3, 8, 8), numpy.float32)})['output']; "
        "print(output.shape, 'torch' in sys.modules)"
    )
    assert run(code) == "(1, 5) False\n"


def test_the_package_never_imports_the_training_side():
    sources = Path(exporters.__file__).parent.rglob("*.py")
    assert not [path for path in sources if "import lightning" in path.read_text()]


def test_export_accepts_an_exporter_with_options(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to=OnnxExporter(opset=18), path=tmp_path / "student.onnx")
    assert artifact.options == {"opset": 18}
    assert exporters.Artifact.read(artifact.path) == artifact


def test_a_trained_module_in_training_mode_is_exported_as_it_is_in_evaluation(small_net, image, tmp_path):
    expected = small_net.eval()(image).detach().numpy()
    small_net.train()
    before = copy.deepcopy(small_net.state_dict())
    artifact = exporters.export(small_net, image, to="onnx", path=tmp_path / "student.onnx")
    output = exporters.load(artifact).run({"image": image.numpy()})["output"]
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert small_net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in small_net.state_dict().items())


def test_verification_uses_inputs_other_than_the_example(broken_exporter, tmp_path):
    def scale(module):
        module.weight.data *= 1.1  # changes nothing on an example of zeros
        return module

    exporter = broken_exporter(exporter=OnnxExporter(), mistake=scale)
    with pytest.raises(exporters.ParityError, match=r"relative L2 0.1,"):
        exporters.export(nn.Linear(4, 3, bias=False), torch.zeros(1, 4), to=exporter, path=tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"to": "tflite"}, ValueError, "`to` must be one of 'coreai', .*'openvino'.* or an exporter, got 'tflite'"),
        ({"precision": "int4"}, ValueError, "`precision` must be one of 'fp32', 'fp16', 'bf16', 'int8', got 'int4'"),
        ({"precision": "bf16"}, exporters.ConversionError, "one of 'fp32', 'fp16'.* for onnx, got 'bf16'"),
        ({"dynamic_batch": (4, 2)}, ValueError, r"`dynamic_batch` must be .*, got \(4, 2\)"),
        ({"dynamic_batch": (0, 2)}, ValueError, r"`dynamic_batch` must be .*, got \(0, 2\)"),
        ({"dynamic_batch": (1, 2, 3)}, ValueError, r"`dynamic_batch` must be .*, got \(1, 2, 3\)"),
        ({"dynamic_batch": 8}, ValueError, "`dynamic_batch` must be .*, got 8"),
        ({"metadata": {"mean": 0.5}}, ValueError, "`extra` must be text, got 0.5"),
        ({"path": "student.xml"}, exporters.PathError, "must end in '.onnx' for onnx, got 'student.xml'; write 'stud"),
        ({"path": "nowhere/student.onnx"}, exporters.PathError, "existing folder, got .*nowhere; create it first"),
        ({"path": "/proc/student.onnx"}, exporters.PathError, "can be written to, got /proc"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(small_net, image, tmp_path, options, error, message):
    options = {"to": "onnx", "path": "student.onnx"} | options
    with pytest.raises(error, match=message):
        exporters.export(small_net, image, **options | {"path": tmp_path / options["path"]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("coreml", "coremltools")]
)
def test_a_missing_runtime_names_the_extra(monkeypatch, small_net, image, tmp_path, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    for module in [module for module in sys.modules if module.startswith("exporters.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "exporters.runtimes", importlib.import_module("exporters.runtimes"))
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'lightning-kd\[{name}\]'"):
        sys.modules["exporters.runtimes"].import_runtime(EXPORTERS, name)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, exporters.ParityError])
def test_an_export_that_ends_early_leaves_what_was_there(monkeypatch, small_net, image, tmp_path, interrupt):
    path = tmp_path / "student.onnx"
    first = exporters.export(small_net, image, to="onnx", path=path)

    def stop(self, artifact, network, *, tolerance):
        raise interrupt

    monkeypatch.setattr(OnnxExporter, "verify", stop)
    with pytest.raises(interrupt):
        exporters.export(small_net, image * 2, to="onnx", path=path)
    assert exporters.Artifact.read(path) == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.onnx", "student.onnx.manifest.json"]


@pytest.mark.parametrize("threads", [0, -1, 10_000, 1.5, True])
def test_a_number_of_threads_that_cannot_be_is_refused(small_net, image, tmp_path, threads):
    with pytest.raises(ValueError, match=rf"`threads` must be None or a whole number from 1 to .*, got {threads!r}"):
        exporters.load(tmp_path / "student.onnx", threads=threads)


def test_an_unknown_inference_precision_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`precision` must be 'fp32' or 'default', got 'bf16'"):
        exporters.load(tmp_path / "student.onnx", precision="bf16")


def test_loading_checks_the_files(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="onnx", path=tmp_path / "student.onnx")
    artifact.path.write_bytes(artifact.path.read_bytes()[:-1])
    with pytest.raises(exporters.ArtifactError, match=r"`student.onnx` must be as it was exported"):
        exporters.load(artifact)


def test_the_pytorch_session_computes_what_the_module_does(small_net, image):
    threads = torch.get_num_threads()
    session = exporters.pytorch_session(small_net.train(), image, dynamic_batch=(1, 4), threads=1)
    images = torch.randn(3, 3, 8, 8)
    output = session.run({"image": images.numpy()})["output"]
    np.testing.assert_array_equal(output, small_net.eval()(images).detach().numpy())
    assert session.properties["threads"] == 1
    assert torch.get_num_threads() == threads
    with pytest.raises(exporters.InputError, match=r"must be 1 to 4, got 5"):
        session.run({"image": np.zeros((5, 3, 8, 8), np.float32)})


def test_every_option_is_given_by_name():
    for function, subjects in ((exporters.export, 2), (exporters.load, 1), (exporters.pytorch_session, 2)):
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * subjects + [inspect.Parameter.KEYWORD_ONLY] * (
            len(kinds) - subjects
        )

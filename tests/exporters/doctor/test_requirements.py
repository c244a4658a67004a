"""What is installed against what is asked for."""

import pytest

from exporters.doctor.requirements import Package, conflicts, extras, packages_of, remarks, unmet


def test_a_package_fits_if_its_version_is_asked_for():
    assert Package(name="openvino", wanted=">=2026.0", installed="2026.4.1").fits
    assert not Package(name="openvino", wanted=">=2026.0", installed="2025.3").fits
    assert not Package(name="openvino", wanted="", installed=None).fits
    assert Package(name="coreai-core", wanted=">=1.0.0b1", installed="1.0.0b3").fits


def test_a_package_is_described_with_what_is_wrong():
    assert str(Package(name="onnx", wanted=">=1.18", installed="1.17.0")) == "onnx 1.17.0 is not >=1.18"
    assert str(Package(name="onnx", wanted=">=1.18", installed=None)) == "onnx is not installed"
    assert str(Package(name="onnx", wanted=">=1.18", installed="1.18")) == "onnx 1.18"


def test_the_packages_of_an_extra_are_those_of_its_requirements_alone():
    names = {package.name for package in packages_of("onnx")}
    assert {"onnx", "onnxruntime", "onnxscript"} <= names
    assert "torch" not in names


def test_every_extra_of_the_project_has_a_probe():
    from exporters.doctor.probes import PROBES

    assert set(PROBES) <= set(extras())
    assert "all" not in extras()


def test_what_an_installed_package_needs_and_does_not_find_is_named(install):
    install("converter", "2.0", "helper>=3", "helper-two", 'other; extra == "never"')
    install("helper", "2.5")
    assert unmet(["converter", "absent"]) == (
        "converter 2.0 needs helper>=3, but 2.5 is installed",
        "converter 2.0 needs helper-two, but none is installed",
    )


def test_two_generations_of_tensorrt_together_are_a_conflict(install):
    install("tensorrt-cu12-bindings", "10.16.1.11")
    assert conflicts("tensorrt") == ()
    install("tensorrt", "11.4.0.106")
    (conflict,) = conflicts("tensorrt")
    assert conflict.startswith("TensorRT 10 and 11 are installed together (tensorrt, tensorrt-cu12-bindings)")


def test_tensorrt_of_the_index_is_a_conflict_on_jetpack(install, monkeypatch):
    install("tensorrt", "11.4.0.106")
    monkeypatch.setattr("exporters.doctor.requirements.is_jetpack", lambda: True)
    assert conflicts("tensorrt")[0].startswith("JetPack 6 has TensorRT 10")


def test_both_packages_of_onnx_runtime_together_are_a_conflict(install):
    install("onnxruntime-gpu", "1.24.4")
    install("onnxruntime", "1.31.1")
    assert conflicts("onnx")[0].startswith("onnxruntime 1.31.1 and onnxruntime-gpu 1.24.4 overwrite each other")


@pytest.mark.parametrize(("version", "found"), [("3.15.0", 1), ("3.14.2", 0)])
def test_core_ai_has_no_packages_beyond_python_3_14(monkeypatch, version, found):
    monkeypatch.setattr("platform.python_version", lambda: version)
    assert len(conflicts("coreai")) == found


def test_core_mls_tested_version_of_torch_is_a_remark(install):
    install("coremltools", "9.0")
    install("torch", "2.7.1")
    assert remarks("coreml") == ()


def test_a_newer_torch_than_core_ml_was_tested_with_is_remarked(install):
    install("coremltools", "9.0")
    install("torch", "2.15.0+cpu")
    assert "tested by its makers up to torch 2.7, and torch 2.15.0+cpu is installed" in remarks("coreml")[0]

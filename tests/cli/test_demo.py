"""The demo, once, as short as it can be."""

import json

import pytest

import exporters

pytestmark = pytest.mark.slow


def test_demo_distils_exports_verifies_profiles_and_reports(run, tmp_path):
    folder = tmp_path / "demo"
    status, out, err = run("demo", "--fast", "--output", folder, "--json")
    assert status == 0, err
    document = json.loads(out)
    assert json.loads((folder / "result.json").read_text()) == {k: v for k, v in document.items() if k != "report"}
    assert 0 < document["alone"]["mean"] < 1
    assert 0 < document["distilled"]["mean"] < 1
    by_runtime = {(d["network"], d["runtime"], d["precision"]): d for d in document["deployments"]}
    _check_figures(by_runtime)
    # The exported file gives the accuracy of the network that was trained.
    student = by_runtime["student", "ONNX Runtime", "fp32"]
    assert student["accuracy"] == pytest.approx(document["distilled"]["accuracies"][0], abs=1e-6)
    for deployment in document["deployments"]:
        if deployment["path"] is not None:
            assert exporters.Artifact.read(deployment["path"]).size_bytes == deployment["size_bytes"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "one seed, so without a spread" in page


def _check_figures(by_runtime):
    for network in ("teacher", "student"):
        assert by_runtime[network, "PyTorch", "fp32"]["latency"]["p50_ms"]["value"] > 0
        for runtime in ("ONNX Runtime", "OpenVINO"):
            deployment = by_runtime[network, runtime, "fp32"]
            assert deployment["parity"]["outputs"][0]["max_abs_of_range"] < 1e-4
            assert deployment["latency"]["threads"] == 1
    apple = by_runtime["student", "Core ML", "fp32"]
    assert apple["parity"]["outputs"][0]["max_abs_of_range"] < 1e-4
    assert apple["accuracy"] == by_runtime["student", "ONNX Runtime", "fp32"]["accuracy"]
    assert apple["latency"] is None
    assert "not run by Core ML" in apple["verified_on"]


def test_a_folder_that_cannot_be_made_is_refused_before_training(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, out, err = run("demo", "--fast", "--output", tmp_path / "file")
    assert (status, out) == (1, "")
    assert err.startswith("lightning-kd demo: error: `output` must be a folder that can be written, got ")

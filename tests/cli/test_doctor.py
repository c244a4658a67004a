"""`doctor`: what can be used here, and the command for the rest."""

import json


def test_names_the_command_that_installs_what_is_missing(run):
    status, out, _ = run("doctor", "tensorrt", "report")
    assert status == 0
    assert "tensorrt: run pip install 'lightning-kd[tensorrt]'" in out
    assert "reports, plots and the demo" in out


def test_prints_one_json_document(run):
    status, out, _ = run("doctor", "report", "--json")
    assert status == 0
    (finding,) = json.loads(out)["findings"]
    assert finding["usable"] is True


def test_an_unknown_extra_ends_in_one_line(run):
    status, out, err = run("doctor", "tflite")
    assert (status, out) == (2, "")
    assert "EXTRA must be among onnx, openvino" in err
    assert err.count("\n") == 1

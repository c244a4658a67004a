"""`profile --device`: settings of the runtimes."""

import json

import pytest

QUICK = ("--min-seconds=0", "--min-runs=40", "--max-seconds=1", "--min-warm-up-seconds=0", "--max-warm-up-seconds=0.2")
THERE = ("--device=local", "--cold-starts=0", "--threads=1", "--json")


def test_settings_reach_their_runtime_and_are_an_error_elsewhere(run, artifacts):
    status, out, err = run("profile", *artifacts, *QUICK, *THERE, "--hint=throughput", "--streams=1")
    document = json.loads(out)
    (measured,) = document["profiles"]
    properties = measured["subject"]["properties"]
    assert (properties["runtime"], properties["hint"], properties["streams"]) == ("openvino", "throughput", 1)
    (failure,) = document["failures"]
    assert failure["artifact"] == "net.onnx"
    assert "`hint` is a setting of openvino, and `target` is of format onnx" in failure["error"]
    assert (status, "net.onnx on local: `hint` is a setting" in err) == (1, True)


def test_spinning_is_switched_on(run, artifacts):
    status, out, err = run("profile", artifacts[0], *QUICK, *THERE, "--spinning=on")
    assert status == 0, err
    assert json.loads(out)["profiles"][0]["subject"]["properties"]["spinning"] == "1"


@pytest.mark.parametrize("option", ["--hint=latency", "--streams=2", "--spinning=on"])
def test_settings_belong_to_a_device(run, artifacts, option):
    status, _, err = run("profile", artifacts[0], option)
    assert status == 2
    assert f"{option.partition('=')[0]} must go with --device" in err

"""`match`: pairs, map and errors."""

import json

import numpy as np
import pytest
from PIL import Image

SHAPE = ("--input-shape", 1, 1, 4, 4)


def test_a_network_matches_itself_layer_by_layer(run, project):
    network = f"{project}:network"
    status, out, err = run("match", network, network, *SHAPE, "--monotone", "--json")
    assert status == 0, err
    document = json.loads(out)
    assert [(match["student"], match["teacher"]) for match in document["matches"]] == [
        (layer, layer) for layer in document["student_layers"]
    ]
    assert document["samples"] == 256
    assert np.shape(document["values"]) == (len(document["student_layers"]), len(document["teacher_layers"]))


def test_prints_a_table_writes_the_map_and_says_that_inputs_were_noise(run, project, tmp_path):
    arguments = (*SHAPE, "--samples", 32, "--top", 2, "--plot", "map.png")
    status, out, err = run("match", f"{project}:network,width=24", f"{project}:network", *arguments)
    assert status == 0, err
    assert "Unbiased CKA of 32 samples" in out
    assert "random noise" in out
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"


def test_compares_the_named_layers_on_the_given_arrays(run, project):
    np.save("inputs.npy", np.random.default_rng(0).standard_normal((40, 1, 4, 4)).astype(np.float32))
    arguments = (*SHAPE, "--data", "inputs.npy", "--student-layers", "1", "3", "--teacher-layers", "*", "--json")
    status, out, err = run("match", f"{project}:network", f"{project}:network", *arguments)
    assert status == 0, err
    document = json.loads(out)
    assert document["student_layers"] == ["1", "3"]
    assert document["samples"] == 40


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--student-layers", "4.x"], 1, "`4.x` names no module of the student"),
        (["--data", "nowhere"], 1, "`data` must be a folder of images or a .npy file, got nowhere"),
        (["--batch-size", "3"], 1, "at least 4 samples"),
        (["--input-shape", "1", "3", "5", "5"], 1, "one that the teacher (Sequential) accepts, got (3, 5, 5)"),
        (["--top", "0"], 2, "argument --top: must be a whole number above 0"),
        (["--plot", "no-folder/map.png"], 1, "`path` must be a file that can be written"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, project, arguments, status, message):
    found, out, err = run("match", f"{project}:network", f"{project}:network", *SHAPE, *arguments)
    assert (found, out) == (status, "")
    assert message in err
    assert err.count("\n") == 1

"""The serving script as a container would run it: another process, real HTTP on the loopback interface."""

import http.client
import io
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import exporters

SERVE = Path(__file__).parents[2] / "docker" / "serve.py"
JSON, BINARY = "application/json", "application/octet-stream"


class Logarithm(torch.nn.Module):
    """Not finite for negative inputs."""

    def forward(self, positive):
        return positive.log().cumsum(dim=1)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "student.xml"
    exporters.export(Logarithm(), torch.rand(2, 3) + 0.5, to="openvino", path=path, dynamic_batch=(1, 8))
    with started(path) as process:
        host, port = process.stdout.readline().rsplit("/", 1)[-1].strip().split(":")
        yield host, int(port)


@contextmanager
def started(path):
    command = [sys.executable, SERVE, path, "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


def ask(address, method, path, body=None, kind=JSON):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


def predict(address, values):
    return ask(address, "POST", "/predict", json.dumps(values))


def test_answers_json_with_the_networks_numbers(served):
    status, outputs = predict(served, {"positive": [[1, 1, 1], [1.0, 2.0, 4.0]]})
    assert status == 200
    # log 1 = 0; log 2 + log 4 = 3 log 2
    expected = [[0, 0, 0], [0, np.log(2), 3 * np.log(2)]]
    np.testing.assert_allclose(outputs["output"], expected, rtol=0, atol=1e-6)


def test_answers_an_npz_file_as_it_answers_json(served):
    values = np.array([[0.5, 2.0, 3.0]], dtype=np.float32)
    file = io.BytesIO()
    np.savez(file, positive=values)
    assert ask(served, "POST", "/predict", file.getvalue(), BINARY) == predict(served, {"positive": values.tolist()})


def test_every_one_of_many_requests_gets_its_own_answer(served):
    values = [[[float(number), 1.0, 1.0]] for number in range(1, 25)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda value: predict(served, {"positive": value}), values))
    found = [outputs["output"][0][0] for _, outputs in answers]
    np.testing.assert_allclose(found, np.log(np.arange(1, 25)), rtol=0, atol=1e-5)


def test_describes_the_network(served):
    status, description = ask(served, "GET", "/")
    assert status == 200
    assert description["inputs"] == {"positive": {"shape": ["batch", 3], "dtype": "float32"}}
    assert description["dimensions"] == {"batch": [1, 8]}
    assert description["properties"]["active_precision"] == "fp32"
    assert description["properties"]["threads"] == 1


def test_says_that_it_is_ready(served):
    assert ask(served, "GET", "/health") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        ('{"image": [[1, 1, 1]]}', JSON, 400, "`positive`, got ['image']"),
        ('{"positive": [[1, 1]]}', JSON, 400, "must have shape ('batch', 3), got (1, 2)"),
        (json.dumps({"positive": [[1, 1, 1]] * 9}), JSON, 400, "must be 1 to 8, got 9"),
        ('{"positive": [[1, 1], [1]]}', JSON, 400, "inhomogeneous"),
        ('{"positive": [["1", "1", "1"]]}', JSON, 400, "Cannot cast"),
        ("[1, 2, 3]", JSON, 400, "must hold arrays by name"),
        ("{", JSON, 400, "must hold arrays by name"),
        (b"no archive", BINARY, 400, "must hold arrays by name"),
        ('{"positive": [[1, -1, 1]]}', JSON, 422, "outputs ['output'] are not finite"),
        ("positive=1", "text/plain", 415, "got text/plain"),
    ],
)
def test_says_what_is_wrong_with_a_request(served, body, kind, status, message):
    answer = ask(served, "POST", "/predict", body, kind)
    assert answer[0] == status
    assert message in answer[1]["error"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_names_the_paths_that_it_serves(served, method):
    status, answer = ask(served, method, "/models", "{}")
    assert status == 404
    assert answer["error"].startswith("/models is not served")


@pytest.mark.parametrize(("length", "status"), [(None, 411), ("100000000000", 413)])
def test_reads_no_body_of_unknown_or_excessive_length(served, length, status):
    connection = http.client.HTTPConnection(*served, timeout=30)
    connection.putrequest("POST", "/predict")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()


def test_stops_at_once_when_it_is_told_to(served, tmp_path):
    path = tmp_path / "student.xml"
    exporters.export(torch.nn.Linear(2, 1), torch.zeros(1, 2), to="openvino", path=path)
    with started(path) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_says_what_is_missing_and_does_not_start(tmp_path):
    with started(tmp_path / "student.xml") as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "export it again" in errors


def test_needs_numpy_and_the_runtime_only(served):
    code = (
        f"import runpy, sys; runpy.run_path({str(SERVE)!r}); import exporters.sessions.openvino; "
        "sys.exit(str({'torch', 'lightning', 'lightning_kd', 'scipy', 'psutil'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert finished.stderr.strip() == "set()"

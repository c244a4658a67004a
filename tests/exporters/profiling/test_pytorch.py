"""PyTorch's own ways to run a network, as what is profiled."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import exporters
from exporters.profiling import profile

SCRIPT = """
import exporters, torch
try:
    exporters.pytorch_session(torch.nn.Linear(2, 2), torch.zeros(1, 2), compiled=True)
except exporters.PlatformError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_compiled_network_computes_and_is_profiled_as_what_it_is(perceptron, quick):
    session = exporters.pytorch_session(perceptron, torch.randn(2, 6), threads=1, compiled=True)
    eager = exporters.pytorch_session(perceptron, torch.randn(2, 6), threads=1)
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 6), dtype=np.float32)}
    np.testing.assert_allclose(session.run(inputs)["output"], eager.run(inputs)["output"], rtol=1e-5, atol=1e-6)
    result = profile(session, batch_size=2, options=quick)
    assert (result.subject.properties["mode"], eager.properties["mode"]) == ("compiled", "eager")
    assert result.threads == 1


@pytest.mark.slow
def test_a_network_of_several_graphs_is_not_compiled_in_part():
    class Breaking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return x + 1

    with pytest.raises(exporters.CaptureError, match=r"`model` must be one graph to be compiled, .*graph_break"):
        exporters.pytorch_session(Breaking(), torch.zeros(1), compiled=True)


@pytest.mark.slow
def test_a_missing_compiler_is_an_error_that_says_so(tmp_path):
    # A cache of its own: what was compiled before needs no compiler.
    environment = os.environ | {"PATH": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    environment.pop("CXX", None)
    found = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("`compiled` must be False where torch.compile finds no working compiler")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, r"`device` must be 'cpu' or 'cuda', got 'tpu'"),
        ({"cuda_graph": True}, r"`cuda_graph` must be False on the CPU, got True"),
        ({"device": "cuda", "threads": 1}, r"`threads` must be None on a GPU, got 1"),
    ],
)
def test_settings_that_do_not_fit_the_device_are_refused(perceptron, arguments, message):
    with pytest.raises(ValueError, match=message):
        exporters.pytorch_session(perceptron, torch.zeros(1, 6), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(perceptron):
    with pytest.raises(exporters.PlatformError, match=r"finds no NVIDIA GPU, got 'cuda'"):
        exporters.pytorch_session(perceptron, torch.zeros(1, 6), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_gpu_has_times_of_its_own_clock(perceptron, quick, cuda_graph):
    session = exporters.pytorch_session(perceptron, torch.randn(2, 6), device="cuda", cuda_graph=cuda_graph)
    eager = exporters.pytorch_session(perceptron, torch.randn(2, 6), threads=1)
    inputs = {"x": np.random.default_rng(0).standard_normal((2, 6), dtype=np.float32)}
    np.testing.assert_allclose(session.run(inputs)["output"], eager.run(inputs)["output"], rtol=1e-4, atol=1e-5)
    result = profile(session, batch_size=2, options=quick)
    assert result.parts_ns.keys() == {"compute", "enqueue"}
    assert all(len(times_ns) == result.runs for times_ns in result.parts_ns.values())


def test_parts_of_a_session_are_kept_for_every_measured_run(spinning, quick):
    class Clocked(spinning):
        def last_parts_ns(self):
            return {"compute": 1_500_000}

    result = profile(Clocked(10), options=quick)
    assert result.parts_ns == {"compute": (1_500_000,) * result.runs}
    assert result.parts_ms == {"compute": 1.5}

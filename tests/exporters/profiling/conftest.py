"""Results with known figures, and a network in every form that can be profiled."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import exporters
from exporters.profiling import (
    ColdStart,
    Concurrency,
    Disturbance,
    Energy,
    Machine,
    Memory,
    Profile,
    ProfileOptions,
    Subject,
)
from exporters.signature import TensorSpec


@pytest.fixture
def quick():
    """Long enough for every rule to apply, short enough for a test."""
    return ProfileOptions(
        min_runs=40, min_seconds=0.02, max_seconds=5.0, min_warm_up_seconds=0.0, max_warm_up_seconds=0.1
    )


@pytest.fixture
def subject():
    return Subject(
        name="student.onnx",
        artifact_sha256="ab" * 32,
        inputs=(TensorSpec("x", (8, 3), "float32"),),
        batch_size=8,
        seed=0,
        properties={"runtime": "onnxruntime", "threads": 2, "active_precision": "fp32"},
        load_ms=12.5,
    )


@pytest.fixture
def machine():
    return Machine(
        cpu="Z80",
        cores=2,
        cpu_quota=None,
        governor="performance",
        load_average=0.25,
        platform="CP/M",
        versions={"python": "3.11.7", "numpy": "2.4.6"},
        memory_bytes=64 * 1024,
        smt=False,
        turbo=False,
        features=("avx2",),
    )


@pytest.fixture
def make_profile(subject, machine):
    """Build a profile whose runs took the given times, ms."""

    def make(latencies_ms, **options):
        return Profile(
            subject=subject,
            machine=machine,
            options=ProfileOptions(**options),
            first_ms=5.0,
            warm_up_ns=(2_000_000, 1_000_000),
            steady=True,
            latencies_ns=tuple(round(latency * 1e6) for latency in latencies_ms),
            sittings=(len(latencies_ms),),
            memory=Memory(peak_bytes=100, increase_bytes=40, increase_is="exact", source="VmHWM"),
            cores=(0, 1),
            cold=(ColdStart(import_ms=50.0, load_ms=20.0, first_ms=5.0, cached=False),),
            concurrency=(
                Concurrency(requests=2, batch_size=8, elapsed_ns=4_000_000, latencies_ns=(2_000_000, 3_000_000)),
            ),
            disturbance=Disturbance(share=0.5, busy_cores=1.0, seconds=3.0),
            energy=Energy(joules=6.0, seconds=1.0, idle_watts=2.0, source="package-0"),
            device="local",
        )

    return make


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="session")
def perceptron():
    torch.manual_seed(0)
    return Perceptron().eval()


@pytest.fixture(scope="session")
def artifacts(perceptron, tmp_path_factory):
    """The network as ONNX with a batch of 1 to 32, and for OpenVINO with a batch of 1 only."""
    folder, example = tmp_path_factory.mktemp("artifacts"), torch.randn(2, 6)
    return {
        "onnx": exporters.export(perceptron, example, to="onnx", path=folder / "student.onnx", dynamic_batch=True),
        "openvino": exporters.export(perceptron, example[:1], to="openvino", path=folder / "student.xml"),
    }


class Spinning:
    """A session whose run keeps the processor busy for a number of additions."""

    inputs = (TensorSpec("x", ("batch",), "float32"),)
    outputs = (TensorSpec("y", ("batch",), "float32"),)

    def __init__(self, additions):
        self.additions = additions
        self.properties = {"runtime": "python", "threads": 1}
        self.calls = []

    def run(self, inputs):
        self.calls.append(inputs)
        sum(range(self.additions))
        return {"y": inputs["x"]}


@pytest.fixture
def spinning():
    return Spinning


class Here:
    """A device without a link: the job runs in its own folder, with nothing of ours on the path."""

    def __init__(self, **settings):
        self.settings = SimpleNamespace(
            **{"name": "here", "cores": None, "threads": None, "timeout_s": None} | settings
        )
        self.before_run = lambda folder: None
        self.timeouts = []

    def run(self, folder, *, timeout_s):
        self.before_run(folder)
        self.timeouts.append(timeout_s)
        finished = subprocess.run(
            [sys.executable, "-m", "runner"],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        assert finished.returncode in (0, 3), finished.stderr.decode()


@pytest.fixture
def here():
    return Here

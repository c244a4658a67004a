"""The runner's way to time an engine, on what stands in for TensorRT and a GPU here."""

import subprocess
import sys

import numpy as np
import pytest

import exporters
from exporters.profiling import JobOptions, ProfileOptions, RuntimeSettings, write_job
from exporters.profiling.runner.failures import JobError
from exporters.profiling.runner.job import Job
from exporters.profiling.runner.process import read_arrays
from exporters.profiling.runner.runtimes import tensorrt as runtime

pytestmark = pytest.mark.slow


@pytest.fixture
def open_packed(small_net, image, tmp_path, tensorrt, monkeypatch):
    """Export, pack and open, as the process on the device does."""
    monkeypatch.setattr(sys, "path", sys.path[:])

    def open_it(**settings):
        artifact = exporters.export(small_net, image, to="tensorrt", path=tmp_path / "n.tensorrt")
        folder = tmp_path / "job"
        folder.mkdir()
        write_job(folder, artifact, options=ProfileOptions(), job=JobOptions(settings=RuntimeSettings(**settings)))
        job = Job.read(folder)
        inputs = read_arrays(folder / "inputs.npz", job.inputs)
        runtime.prepare(folder / job.file)
        network = runtime.open_network(folder / job.file, job, inputs, threads=1, cache=None)
        return network, read_arrays(folder / "references.npz", job.outputs)

    return open_it


def test_an_engine_runs_with_times_of_the_gpu_and_of_the_launching_call(open_packed):
    network, references = open_packed()
    (output,) = network.run()
    np.testing.assert_allclose(output, references["output"], rtol=1e-4, atol=1e-5)
    parts = network.parts()
    assert parts.keys() == {"compute", "enqueue"}
    assert parts["compute"] == 250_000  # the stand-in's clock advances a quarter of a millisecond per event
    assert parts["enqueue"] > 0
    assert (network.properties["device"], network.properties["cuda_graph"]) == ("Stand-in GPU", "False")


def test_a_recorded_launch_is_replayed_as_one(open_packed):
    network, references = open_packed(cuda_graph=True)
    cuda = sys.modules["cuda.bindings.runtime"]
    assert cuda.launched == []
    (output,) = network.run()
    network.run()
    assert cuda.launched == [("launchable graph", cuda.STREAM)] * 2
    np.testing.assert_allclose(output, references["output"], rtol=1e-4, atol=1e-5)


def test_a_folder_has_all_that_times_its_engine(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="tensorrt", path=tmp_path / "n.tensorrt")
    script = (
        "import sys; import exporters.tensorrt.memory, exporters.tensorrt.engine, exporters; print(exporters.__file__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=artifact.path, env={}, check=True, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(artifact.path))


def test_an_engine_that_cannot_be_built_on_the_device_is_said(small_net, image, tmp_path):
    artifact = exporters.export(small_net, image, to="tensorrt", path=tmp_path / "n.tensorrt")
    with pytest.raises(JobError, match=r"the engine must be built on the device, but TensorRT 10 or 11 must be inst"):
        runtime.prepare(artifact.path)

import subprocess
import sys

import numpy as np
import pytest
import torch

import exporters
from exporters.errors import ArtifactError, InputError
from exporters.profiling import Comparison, Profile, compare, profile


@pytest.mark.parametrize(("format", "batch_size"), [("onnx", 1), ("onnx", 7), ("openvino", 1)])
def test_an_artifact_is_loaded_warmed_up_and_measured(artifacts, quick, format, batch_size):
    artifact = artifacts[format]
    result = profile(artifact, threads=1, batch_size=batch_size, options=quick)
    assert result.complete
    assert result.threads == 1
    assert result.active_precision == "fp32"
    assert result.p50_ms.low <= result.p50_ms.value <= result.p50_ms.high
    assert result.min_ms <= result.p50_ms.value <= result.p90_ms.value
    assert len(result.warm_up_ns) >= 1
    assert result.load_ms > 0
    assert result.first_ms > 0
    assert result.subject.name == artifact.path.name
    assert result.subject.artifact_sha256 == artifact.sha256
    assert result.subject.inputs[0].shape == (batch_size, 6)
    assert Profile.from_json(result.to_json()) == result


def test_an_artifact_is_found_by_its_path(artifacts, quick):
    by_path = profile(artifacts["onnx"].path, threads=1, options=quick)
    by_text = profile(str(artifacts["onnx"].manifest_path), threads=1, options=quick)
    assert by_path.subject.artifact_sha256 == by_text.subject.artifact_sha256 == artifacts["onnx"].sha256


def test_pytorch_is_profiled_by_the_same_code(perceptron, quick):
    session = exporters.pytorch_session(perceptron, torch.randn(3, 6), threads=1)
    result = profile(session, batch_size=3, options=quick)
    assert (result.subject.properties["runtime"], result.threads, result.load_ms) == ("pytorch", 1, None)
    assert result.subject.artifact_sha256 is None


def test_every_run_takes_the_same_arrays(spinning, quick):
    session = spinning(10)
    result = profile(session, batch_size=4, options=quick)
    assert len(session.calls) == 1 + len(result.warm_up_ns) + result.runs
    assert all(call is session.calls[0] for call in session.calls)


def test_inputs_of_the_user_are_run_as_they_are(spinning, quick):
    session, array = spinning(10), np.full(5, 3.0, dtype=np.float32)
    result = profile(session, batch_size=5, inputs={"x": array}, options=quick)
    assert session.calls[0]["x"] is array
    assert result.subject.seed is None


def test_a_run_of_a_network_many_times_as_long_is_measured_as_longer(spinning, quick):
    short, long = (profile(spinning(additions), options=quick) for additions in (2_000, 60_000))
    assert long.p50_ms.value > 5 * short.p50_ms.value


def test_memory_of_a_network_shows_in_a_fresh_process():
    script = """
import numpy as np
from exporters.profiling import ProfileOptions, profile
from exporters.signature import TensorSpec

class Hungry:
    inputs = outputs = (TensorSpec("x", ("batch",), "float32"),)
    properties = {}
    def run(self, inputs):
        np.ones(100 * 2**20, dtype=np.uint8)
        return inputs

options = ProfileOptions(min_runs=1, min_seconds=0, min_warm_up_seconds=0, warm_up_window=1)
memory = profile(Hungry(), options=options).memory
print(memory.increase_bytes, memory.increase_is)
"""
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    increase_bytes, increase_is = output.split(maxsplit=1)
    assert int(increase_bytes) == pytest.approx(100 * 2**20, rel=0.1)
    assert increase_is.strip() == "exact"


def test_importing_the_profiler_loads_neither_pytorch_nor_a_runtime():
    script = "import sys, exporters.profiling; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert "numpy" in roots
    assert not roots & {"coremltools", "lightning", "onnx", "onnxruntime", "openvino", "psutil", "scipy", "torch"}


def test_runtimes_are_compared_over_five_sittings_of_fresh_instances_and_every_block_is_kept(artifacts, quick):
    result = compare(artifacts["onnx"], artifacts["openvino"], threads=1, options=quick)
    assert (result.first.properties["runtime"], result.second.properties["runtime"]) == ("onnxruntime", "openvino")
    assert result.control == "other instances"
    assert [len(result.first_ns), len(result.control_ns), len(result.second_ns)] == [5, 5, 5]
    assert all(len(block) == 10 for sitting in result.second_ns for block in sitting)
    assert sum(map(len, result.first_ns)) * 10 >= quick.min_runs
    assert result.ratio.low <= result.ratio.high
    assert Comparison.from_json(result.to_json()) == result


def test_a_session_thirty_times_as_long_is_called_slower(spinning, quick):
    result = compare(spinning(1_000), spinning(30_000), options=quick)
    assert result.verdict == "slower"
    assert result.control == "same instance"
    assert result.ratio.value > 5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, r"`batch_size` must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, r"`batch_size` must be an integer, got 2.0"),
        ({"batch_size": 8}, InputError, r"`batch_size` must be 1, the static batch .* got 8; .* `dynamic_batch=True`"),
        ({"seed": -1}, ValueError, r"`seed` must be at least 0, got -1"),
        ({"threads": 0}, ValueError, r"`threads` must be .* got 0"),
        ({"threads": 4096}, ValueError, r"`threads` must be .* got 4096"),
        ({"threads": "all"}, ValueError, r"`threads` must be .* got 'all'"),
        ({"inputs": {"y": np.zeros((1, 6), np.float32)}}, InputError, r"must have exactly the names `x`, got \['y'\]"),
    ],
)
@pytest.mark.parametrize("measure", [profile, lambda target, **options: compare(target, target, **options)])
def test_arguments_that_do_not_fit_are_refused(artifacts, quick, measure, arguments, error, message):
    with pytest.raises(error, match=message):
        measure(artifacts["openvino"], **arguments, options=quick)


def test_a_batch_outside_the_dynamic_range_is_refused(artifacts, quick):
    with pytest.raises(InputError, match=r"dimension `batch` of input `x` must be 1 to 32, got 33"):
        profile(artifacts["onnx"], batch_size=33, options=quick)


def test_threads_of_a_session_are_fixed(spinning):
    with pytest.raises(ValueError, match=r"`threads` must be None for a session.* got 2; .*threads=2\)"):
        profile(spinning(1), threads=2)


@pytest.mark.parametrize(("target", "name"), [(3, "int"), (None, "NoneType"), (torch.nn.ReLU(), "ReLU")])
def test_what_is_neither_artifact_nor_session_is_refused(target, name):
    with pytest.raises(TypeError, match=rf"`target` must be an artifact.* got {name}; .*`exporters.pytorch_session`"):
        profile(target)


def test_a_file_without_manifest_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent\.onnx\.manifest\.json"):
        profile(tmp_path / "absent.onnx")

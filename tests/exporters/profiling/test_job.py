import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

import exporters
from exporters.errors import InventoryError
from exporters.profiling import (
    JobOptions,
    Profile,
    ProfileOptions,
    RuntimeSettings,
    profile,
    read_result,
    sweep,
    write_job,
)
from exporters.profiling.runner.job import Job

LAST_CORE = max(os.sched_getaffinity(0)) if sys.platform == "linux" else None


@pytest.fixture
def no_cold_starts():
    return JobOptions(cold_starts=0, sittings=1)


@pytest.fixture(scope="module")
def packed(artifacts, tmp_path_factory):
    """A job for the ONNX file, ready to be run or read; not to be changed."""
    folder = tmp_path_factory.mktemp("packed")
    write_job(folder, artifacts["onnx"], threads=1, batch_size=3, seed=7)
    return folder


def test_a_job_is_one_folder_with_everything_that_it_needs(packed, artifacts):
    names = {path.name for path in packed.iterdir()}
    assert {"runner", "job.json", "inputs.npz", "references.npz", "student.onnx.manifest.json"} <= names
    assert {record.name for record in artifacts["onnx"].files} <= names
    assert not list(packed.rglob("__pycache__"))


def test_references_are_what_the_artifact_computes_here_on_the_same_inputs(packed, artifacts):
    with np.load(packed / "inputs.npz") as inputs, np.load(packed / "references.npz") as references:
        expected = exporters.load(artifacts["onnx"]).run(dict(inputs))
        assert inputs["x"].shape == (3, 6)
        np.testing.assert_array_equal(references["output"], expected["output"])


def test_a_job_is_read_as_it_was_written(packed, tmp_path):
    job = Job.read(packed)
    job.write(tmp_path)
    assert Job.read(tmp_path) == job
    assert (job.format, job.file, job.threads, job.inputs, job.outputs) == (
        "onnx",
        "student.onnx",
        1,
        ("x",),
        ("output",),
    )


def test_fresh_processes_measure_an_artifact_with_cold_starts_and_requests_at_once(artifacts, quick, here):
    job = JobOptions(cold_starts=2, sittings=2, concurrency=(1, 2))
    result = profile(artifacts["onnx"], threads=1, batch_size=2, options=quick, device=here(), job=job)
    assert (result.device, result.threads, result.active_precision) == ("here", 1, "fp32")
    assert result.subject.artifact_sha256 == artifacts["onnx"].sha256
    assert result.subject.inputs[0].shape == (2, 6)
    assert result.complete
    # Two processes that start from nothing, two that find what a process between them saved.
    assert [start.cached for start in result.cold] == [False, False, True, True]
    assert all(min(start.import_ms, start.load_ms, start.first_ms) > 0 for start in result.cold)
    assert [requests.requests for requests in result.concurrency] == [1, 2]
    assert all(len(requests.latencies_ns) >= quick.min_runs for requests in result.concurrency)
    # The runs are divided between two more processes.
    assert len(result.sittings) == 2
    assert sum(result.sittings) == result.runs
    assert result.memory.increase_is == "exact"
    assert Profile.from_json(result.to_json()) == result


@pytest.mark.skipif(LAST_CORE is None, reason="processes are pinned on Linux")
def test_the_process_is_pinned_to_as_many_cores_as_threads(artifacts, quick, here, no_cold_starts):
    result = profile(artifacts["onnx"], threads=1, options=quick, device=here(), job=no_cold_starts)
    assert result.cores == (LAST_CORE,)
    assert result.machine.cores >= 1


def test_openvino_says_that_it_read_its_cache_and_takes_its_settings(artifacts, quick, here):
    job = JobOptions(cold_starts=1, sittings=1, settings=RuntimeSettings(hint="throughput", streams=1))
    result = profile(artifacts["openvino"], threads=1, options=quick, device=here(), job=job)
    assert [start.cached for start in result.cold] == [False, True]
    assert (result.subject.properties["hint"], result.subject.properties["streams"]) == ("throughput", 1)


def test_spinning_is_read_back(artifacts, quick, here):
    job = JobOptions(cold_starts=0, sittings=1, settings=RuntimeSettings(spinning=True))
    result = profile(artifacts["onnx"], threads=1, options=quick, device=here(), job=job)
    assert result.subject.properties["spinning"] == "1"


def test_a_device_is_opened_by_its_address(artifacts, quick, no_cold_starts):
    result = profile(artifacts["onnx"].path, threads=1, options=quick, device="local", job=no_cold_starts)
    assert (result.device, result.threads) == ("local", 1)
    with pytest.raises(InventoryError, match=r"got 'ftp://pi'"):
        profile(artifacts["onnx"], device="ftp://pi")


@pytest.mark.slow
def test_executorch_runs_with_nothing_of_ours(perceptron, quick, here, no_cold_starts, tmp_path):
    artifact = exporters.export(perceptron, (torch.randn(1, 6),), to="executorch", path=tmp_path / "student.pte")
    result = profile(artifact, threads=1, options=quick, device=here(), job=no_cold_starts)
    assert (result.subject.properties["runtime"], result.threads) == ("executorch", 1)
    with pytest.raises(ValueError, match=r"`concurrency` must be empty for executorch, .* got \(2,\)"):
        profile(artifact, device=here(), job=JobOptions(concurrency=(2,)))


def test_what_is_left_open_comes_from_the_device(artifacts, quick, here, no_cold_starts):
    device = here(threads=1, cores=(LAST_CORE,) if LAST_CORE is not None else None, timeout_s=123.0)
    result = profile(artifacts["onnx"], options=quick, device=device, job=no_cold_starts)
    assert (result.threads, device.timeouts) == (1, [123.0])
    with pytest.raises(subprocess.TimeoutExpired):
        profile(artifacts["onnx"], options=quick, device=device, job=JobOptions(timeout_s=0.01))
    assert device.timeouts[-1] == 0.01


def test_every_batch_size_is_measured_in_order(artifacts, quick):
    profiles = sweep(artifacts["onnx"], batch_sizes=(4, 1), threads=1, options=quick)
    assert [each.subject.batch_size for each in profiles] == [4, 1]


@pytest.mark.parametrize("sizes", [[], [2, 2]])
def test_batch_sizes_are_different(artifacts, sizes):
    with pytest.raises(ValueError, match=rf"`batch_sizes` must be different .* got {re.escape(str(sizes))}"):
        sweep(artifacts["onnx"], batch_sizes=sizes)


def spoil_file(folder):
    with (folder / "student.onnx").open("ab") as file:
        file.write(b"\0")


def remove_file(folder):
    (folder / "student.onnx").unlink()


def spoil_references(folder):
    with np.load(folder / "references.npz") as arrays:
        np.savez(folder / "references.npz", **{name: array + 1 for name, array in arrays.items()})


def change_job(**changes):
    def change(folder):
        content = json.loads((folder / "job.json").read_text())
        (folder / "job.json").write_text(json.dumps(content | changes))

    return change


def forget_runtime(folder):
    (folder / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')\n")


def crash(folder):
    (folder / "onnxruntime.py").write_text("import os, sys\nsys.stderr.write('out of luck')\nos._exit(9)\n")


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            spoil_file,
            exporters.ArtifactError,
            r"here: student\.onnx must be as it was sent, but its SHA-256",
        ),
        (remove_file, exporters.ArtifactError, r"here: student\.onnx must be as it was sent"),
        (
            spoil_references,
            exporters.ParityError,
            r"here: output `output` must equal the host's reference, but max_",
        ),
        (change_job(threads=4096), exporters.PlacementError, r"here: `threads` must be at most \d+, .* got 4096"),
        (change_job(cores=[4096]), exporters.PlacementError, r"here: `cores` must be among .* got \[4096\]"),
        (
            forget_runtime,
            exporters.MissingRuntimeError,
            r"here: `onnxruntime` must be installed .*install onnxr",
        ),
        (crash, exporters.MeasurementError, r"here: a process must end with 0 or 3, but ended with 9: out of luck"),
        (change_job(format="abacus"), exporters.MeasurementError, r"the format must be one of onnx, .* got abacus"),
        (change_job(surprise=1), exporters.MeasurementError, r"job\.json must be a job of this runner, .*surprise"),
    ],
)
def test_what_goes_wrong_there_is_an_error_of_its_kind_here(artifacts, quick, here, spoil, error, message):
    device = here()
    device.before_run = spoil
    with pytest.raises(error, match=message):
        profile(artifacts["onnx"], threads=1, options=quick, device=device, job=JobOptions(cold_starts=0))


def test_a_precision_that_is_not_in_effect_is_refused(artifacts, quick, here):
    device = here()
    # A runtime that computes in bf16 whatever it is asked for.
    device.before_run = lambda folder: (folder / "openvino.py").write_text(STUBBORN)
    with pytest.raises(exporters.PlatformError, match=r"must compute in fp32 as asked for, but .* bf16"):
        profile(artifacts["openvino"], options=quick, device=device, job=JobOptions(cold_starts=0))
    device.before_run = lambda folder: (
        (folder / "openvino.py").write_text(STUBBORN),
        change_job(precision="bf16")(folder),
    )
    with pytest.raises(exporters.PlatformError, match=r"student\.xml is bf16, which this processor computes in"):
        profile(artifacts["openvino"], options=quick, device=device, job=JobOptions(cold_starts=0))


STUBBORN = """
class Core:
    def read_model(self, path):
        return path
    def compile_model(self, *_):
        return self
    def get_property(self, *names):
        return ["FP32"] if len(names) == 2 else self
    def get_type_name(self):
        return "bf16"
"""


def test_a_device_without_a_result_is_an_error(tmp_path):
    with pytest.raises(exporters.MeasurementError, match=r"pi: the runner must have written result\.json, but "):
        read_result(tmp_path, device="pi")


def test_an_artifact_of_another_version_or_with_a_changed_file_is_not_sent(artifacts, tmp_path, here):
    source = artifacts["onnx"]
    for record in (source.path, source.manifest_path):
        shutil.copy(record, tmp_path)
    copied, manifest = tmp_path / source.path.name, tmp_path / source.manifest_path.name
    spoil_file(tmp_path)
    with pytest.raises(exporters.ArtifactError, match=r"`student\.onnx` must be as it was exported"):
        profile(copied, device=here())
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 99}))
    with pytest.raises(exporters.ArtifactError, match=r"`schema_version` of .* must be \d+, got 99"):
        profile(copied, device=here())


@pytest.mark.parametrize(
    ("format", "arguments", "job", "error", "message"),
    [
        ("onnx", {"threads": 0}, {}, ValueError, r"`threads` must be at least 1, got 0"),
        ("onnx", {"batch_size": 0}, {}, ValueError, r"`batch_size` must be at least 1, got 0"),
        ("openvino", {"batch_size": 2}, {}, exporters.InputError, r"`batch_size` must be 1, the static batch"),
        (
            "onnx",
            {"batch_size": 33},
            {},
            exporters.InputError,
            r"dimension `batch` of input `x` must be 1 to 32, got 33",
        ),
        (
            "onnx",
            {},
            {"settings": RuntimeSettings(streams=2)},
            ValueError,
            r"`streams` is a setting of openvino",
        ),
        ("openvino", {}, {"settings": RuntimeSettings(spinning=True)}, ValueError, r"`spinning` is a setting of onnx"),
        (
            "onnx",
            {},
            {"settings": RuntimeSettings(precision="default")},
            ValueError,
            r"`precision` is a setting",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(
    artifacts, here, format, arguments, job, error, message
):
    with pytest.raises(error, match=message):
        profile(artifacts[format], **arguments, device=here(), job=JobOptions(**job))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cold_starts": -1}, ValueError, r"`cold_starts` must be at least 0, got -1"),
        ({"cold_starts": 2.0}, TypeError, r"`cold_starts` must be an integer, got 2.0"),
        ({"sittings": 0}, ValueError, r"`sittings` must be at least 1, got 0"),
        ({"concurrency": (0,)}, ValueError, r"`concurrency` must be at least 1, got 0"),
        ({"cores": ()}, ValueError, r"`cores` must be None or different core numbers, at least one, got \(\)"),
        ({"cores": (1, 1)}, ValueError, r"`cores` must be None or different .* got \(1, 1\)"),
        ({"cores": (-1,)}, ValueError, r"`cores` must be at least 0, got -1"),
        ({"timeout_s": 0}, ValueError, r"`timeout_s` must be None or a finite number of seconds above 0, got 0"),
        ({"timeout_s": float("inf")}, ValueError, r"`timeout_s` must be None or a finite .* got inf"),
    ],
)
def test_options_outside_their_range_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        JobOptions(**options)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"precision": "int4"}, ValueError, r"`precision` must be one of .* got 'int4'"),
        ({"hint": "speed"}, ValueError, r"`hint` must be one of .* got 'speed'"),
        ({"streams": 0}, ValueError, r"`streams` must be None or .* got 0"),
        ({"spinning": 1}, TypeError, r"`spinning` must be True or False, got 1"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        RuntimeSettings(**settings)


def test_sessions_stay_in_this_process_and_jobs_out_of_it(spinning, here):
    with pytest.raises(TypeError, match=r"`target` must be an artifact .* got the session Spinning, which lives"):
        profile(spinning(1), device=here())
    with pytest.raises(ValueError, match=r"`job` must be None in this process, got .*; give `device='local'`"):
        profile(spinning(1), job=JobOptions())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_busy_process_is_reported_and_the_latencies_are_left_as_they_are(artifacts, here, no_cold_starts):
    long_enough = ProfileOptions(min_runs=40, min_seconds=0.7, min_warm_up_seconds=0.0, max_warm_up_seconds=0.1)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            job = no_cold_starts
            result = profile(artifacts["onnx"], threads=1, options=long_enough, device=here(), job=job)
        finally:
            busy.kill()
    # Whatever core it got: with the measuring process on one, it has at least half of one.
    assert result.disturbed
    assert result.disturbance.busy_cores > 0.4
    assert result.summary()["disturbed"] is True
    assert result.complete
    assert result.runs == len(result.latencies_ns)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends a process with its parent")
def test_a_runner_that_is_killed_takes_its_processes_along(packed, tmp_path):
    folder = tmp_path / "job"
    shutil.copytree(packed, folder)
    endless = dataclasses.asdict(ProfileOptions(min_runs=1, min_seconds=300.0, max_seconds=300.0))
    change_job(options=endless, cold_starts=0, sittings=1)(folder)
    with subprocess.Popen([sys.executable, "-m", "runner"], cwd=folder) as runner:
        process = psutil.Process(runner.pid)
        while not (children := process.children()) or not _has_loaded("onnxruntime", children[0]):
            time.sleep(0.05)
        runner.kill()
    assert psutil.wait_procs(children, timeout=20)[1] == []


def _has_loaded(library, process):
    return any(library in mapped.path for mapped in process.memory_maps())

"""Every kind of device does the same: runs the job, brings the result back, leaves nothing."""

import ast
import json
import sys
import threading
import time

import psutil
import pytest

from exporters.errors import DeviceError, DeviceTimeoutError, MissingRuntimeError
from exporters.profiling.devices import DeviceSettings, open_device
from exporters.profiling.devices.supervision import SUPERVISOR


def test_a_job_runs_there_and_its_result_comes_back(device, job, there):
    device.run(job, timeout_s=60)
    result = json.loads((job / "result.json").read_text())
    assert result["double"] == 42
    assert sorted(result["words"]) == ["in a folder", "linked"]
    assert result["cwd"].startswith(f"{there}/lightning-kd-")
    assert result["python"] == sys.executable


def test_a_runner_that_reports_a_problem_brings_its_report(device, make_job):
    job = make_job("import sys; open('result.json', 'w').write('a report'); sys.exit(3)")
    device.run(job, timeout_s=60)
    assert (job / "result.json").read_text() == "a report"


def test_a_runner_that_fails_is_quoted(device, make_job):
    job = make_job("raise SystemExit('no such accelerator')")
    with pytest.raises(DeviceError, match=r"one: the runner must end with exit code 0, got 1: no such accelerator"):
        device.run(job, timeout_s=60)
    assert not (job / "result.json").exists()


def test_a_runner_that_is_killed_is_told_from_one_that_fails(device, make_job):
    job = make_job("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DeviceError, match=r"got signal 9 \(as when memory runs out\): it printed nothing"):
        device.run(job, timeout_s=60)


def test_a_runner_without_a_result_is_an_error(device, make_job):
    with pytest.raises(DeviceError, match=r"the runner must write .*result\.json"):
        device.run(make_job("pass"), timeout_s=60)


def test_processes_of_the_runner_end_with_it(device, make_job):
    job = make_job("""
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open("result.json", "w").write("{}")
        """)
    device.run(job, timeout_s=60)


def test_temporary_files_of_the_runner_are_removed_with_the_folder(device, make_job, there):
    job = make_job("import tempfile; open('result.json', 'w').write(tempfile.mkdtemp())")
    device.run(job, timeout_s=60)
    assert (job / "result.json").read_text().startswith(f"{there}/lightning-kd-")


def test_a_runner_that_hangs_ends_within_its_timeout(device, make_job):
    job = make_job("""
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
        """)
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match=r"within `timeout_s`, got 3 s, which ended while running the job"):
        device.run(job, timeout_s=3)
    assert time.monotonic() - start < 8


def test_a_job_that_is_interrupted_leaves_nothing(device, make_job, there, helpers):
    job = make_job("import time; time.sleep(600)")
    failures = []

    def run():
        try:
            device.run(job, timeout_s=60)
        except DeviceError as error:
            failures.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert helpers.eventually(lambda: list(there.glob("*/runner/__main__.py")))
    device.interrupt()
    thread.join(10)
    assert not thread.is_alive()
    assert failures == [f"{device.settings.name}: the job was interrupted."]


def test_a_supervisor_that_is_asked_to_end_cleans_up(device, make_job, there, helpers):
    job = make_job("import time; time.sleep(600)")
    stop = threading.Thread(target=lambda: _runner_under(there, helpers).parent().terminate())
    stop.start()
    with pytest.raises(DeviceError, match="one: the job was ended on the device, by a signal"):
        device.run(job, timeout_s=60)
    stop.join()


def _runner_under(there, helpers):
    def inside():
        return [
            process for process in psutil.process_iter(["cwd"]) if (process.info["cwd"] or "").startswith(str(there))
        ]

    assert helpers.eventually(inside)
    return inside()[0]


def test_a_folder_that_is_not_there_is_an_error(device, job, tmp_path):
    missing = open_device(DeviceSettings(url=device.settings.url, python=sys.executable, folder=str(tmp_path / "none")))
    with pytest.raises(DeviceError, match=r"`folder` must be one to write in, got .*No such file.*none"):
        missing.run(job, timeout_s=60)


def test_a_python_that_is_not_there_is_an_error(device, job, there):
    missing = open_device(DeviceSettings(url=device.settings.url, python="/no/python", folder=str(there)))
    with pytest.raises(DeviceError, match=r"/no/python"):
        missing.run(job, timeout_s=60)


def test_a_missing_runtime_names_the_command_that_installs_it(device, job, there, bare_python):
    bare = open_device(DeviceSettings(url=device.settings.url, python=str(bare_python), folder=str(there)))
    words = rf"got no numpy, onnxruntime; run there: {bare_python} -m pip install numpy onnxruntime$"
    with pytest.raises(MissingRuntimeError, match=words):
        bare.run(job, timeout_s=60)


def test_a_full_disk_is_noticed_before_copying(device, job, mount_disk):
    disk = mount_disk(1)
    full = open_device(DeviceSettings(url=device.settings.url, python=sys.executable, folder=str(disk)))
    with pytest.raises(DeviceError, match=r"`folder` must have 16\.0 MiB free for this job, got 1\.0 MiB where"):
        full.run(job, timeout_s=60)
    assert not list(disk.iterdir())


def test_a_disk_that_the_runner_fills_is_an_error(device, make_job, mount_disk):
    disk = mount_disk(17)
    full = open_device(DeviceSettings(url=device.settings.url, python=sys.executable, folder=str(disk)))
    job = make_job("open('result.json', 'wb').write(bytes(18 << 20))")
    with pytest.raises(DeviceError, match=r"(?s)must end with exit code 0, got 1: .*No space left on device"):
        full.run(job, timeout_s=60)
    assert not list(disk.iterdir())


def test_a_device_that_was_interrupted_takes_no_more_jobs(device, job):
    device.interrupt()
    with pytest.raises(DeviceError, match=f"{device.settings.name}: the job was interrupted"):
        device.run(job, timeout_s=60)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"`folder` must hold a job, got .* without a readable job\.json: .*No such file"),
        ("{}", r"without a readable job\.json: 'format'"),
        ("[1]", r"without a readable job\.json: list indices"),
        ('{"format": "tflite"}', r"`format` in job\.json must be one of coreai, .*tensorrt, got 'tflite'"),
    ],
)
def test_a_folder_without_a_job_is_an_error_before_anything_is_connected(tmp_path, content, words):
    if content is not None:
        (tmp_path / "job.json").write_text(content)
    with pytest.raises(DeviceError, match=words):
        open_device("local").run(tmp_path, timeout_s=60)


def test_a_start_up_file_that_prints_is_named_as_the_cause(device, job, there, make_python):
    noisy = make_python(
        "import os, sys; os.write(1, b'Welcome!\\n'); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    printing = open_device(DeviceSettings(url=device.settings.url, python=noisy, folder=str(there)))
    with pytest.raises(DeviceError, match=r"the login shell must print nothing of its own, got b'Welcome!\\n'"):
        printing.run(job, timeout_s=60)


def test_an_old_python_is_an_error(device, job, there, make_python):
    old = make_python("import sys; sys.version_info = (3, 8, 10); code = sys.argv[2]; del sys.argv[1:3]; exec(code)")
    ageing = open_device(DeviceSettings(url=device.settings.url, python=old, folder=str(there)))
    with pytest.raises(DeviceError, match=r"`python` must be Python 3\.10 or newer, got .* of version 3\.8\.10; name"):
        ageing.run(job, timeout_s=60)


def test_the_supervisor_can_be_read_by_older_pythons():
    ast.parse(SUPERVISOR.read_text(), feature_version=(3, 7))


def test_a_supervisor_that_is_killed_takes_the_runner_with_it(device, make_job, there, helpers):
    killing = threading.Thread(target=lambda: _runner_under(there, helpers).parent().kill())
    killing.start()
    with pytest.raises(DeviceError, match=r"what keeps the job ended with exit code (137|-9): it printed nothing\.$"):
        device.run(make_job("import time; time.sleep(600)"), timeout_s=60)
    killing.join()
    assert not list(there.iterdir())

"""Real artifacts, the real runner, real runtimes, and a device that has nothing of ours."""

import json
import subprocess

import pytest

from exporters.errors import MissingRuntimeError, PlacementError
from exporters.profiling import JobOptions, Profile, ProfileOptions, profile
from lightning_kd.cli import main

QUICK = ProfileOptions(min_runs=40, min_seconds=0.0, max_seconds=2.0, min_warm_up_seconds=0.0, max_warm_up_seconds=0.2)
QUICK_WORDS = ("--min-runs=40", "--min-seconds=0", "--max-seconds=2", "--min-warm-up-seconds=0", "--cold-starts=1")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    import torch
    from torch import nn

    import exporters

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 3))
    folder = tmp_path_factory.mktemp("artifacts")
    targets = {"onnx": folder / "net.onnx", "openvino": folder / "net.xml"}
    return {to: exporters.export(net, torch.randn(1, 1, 4, 4), to=to, path=path) for to, path in targets.items()}


@pytest.fixture
def inventory(tmp_path, at_home, there, python_without_ours, bare_python):
    path = tmp_path / "devices.toml"
    path.write_text(f"""
[devices.board]
url = "{at_home.url}"
python = "{python_without_ours}"
folder = "{there}"
cores = [0]
threads = 1

[devices.empty]
url = "{at_home.url}"
python = "{bare_python}"
folder = "{there}"
""")
    return path


def test_the_device_has_nothing_of_ours(python_without_ours):
    for package in ("exporters", "lightning_kd"):
        command = [python_without_ours, "-c", f"import {package}"]
        found = subprocess.run(command, capture_output=True, cwd="/", env={}, check=False)
        assert found.returncode == 1
        assert b"ModuleNotFoundError" in found.stderr


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_same_measurement_comes_from_the_device(artifacts, over_ssh, python_without_ours, to):
    there = over_ssh(python=str(python_without_ours), cores=(0,), threads=1)
    measured = profile(artifacts[to], device=there, options=QUICK, job=JobOptions(cold_starts=1, sittings=1))
    job = JobOptions(cores=(0,), cold_starts=1, sittings=1)
    here = profile(artifacts[to], device="local", options=QUICK, threads=1, job=job)
    assert (measured.device, here.device) == ("board", "local")
    assert measured.runs >= 40
    for found, expected in ((measured.subject, here.subject), (measured.machine, here.machine)):
        assert type(found) is type(expected)
    assert measured.subject.properties == here.subject.properties
    assert measured.subject.artifact_sha256 == here.subject.artifact_sha256 == artifacts[to].sha256
    assert measured.cores == here.cores == (0,)
    assert [start.cached for start in measured.cold] == [start.cached for start in here.cold]
    assert Profile.from_json(measured.to_json()) == measured


def test_what_the_runner_finds_wrong_is_the_same_error_as_here(artifacts, over_ssh, python_without_ours):
    with pytest.raises(PlacementError, match=r"^board: .*4096"):
        profile(artifacts["onnx"], device=over_ssh(python=str(python_without_ours)), threads=4096, options=QUICK)


def test_a_device_without_the_runtime_says_so(artifacts, over_ssh, bare_python):
    with pytest.raises(MissingRuntimeError, match="pip install numpy openvino"):
        profile(artifacts["openvino"], device=over_ssh(python=str(bare_python)), options=QUICK)


def test_the_command_measures_on_several_devices_and_keeps_what_succeeds(artifacts, inventory, capsys):
    devices = ("--device", "board", "--device", "empty", "--device", "local", "--inventory", str(inventory))
    paths = [str(artifact.path) for artifact in artifacts.values()]
    assert main(["profile", *paths, *devices, *QUICK_WORDS, "--timeout", "120", "--json"]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    profiles = [Profile.from_json(json.dumps(each)) for each in document["profiles"]]
    assert [(each.subject.name, each.device) for each in profiles] == [
        ("net.onnx", "board"),
        ("net.xml", "board"),
        ("net.onnx", "local"),
        ("net.xml", "local"),
    ]
    assert [(each.cores, each.threads) for each in profiles[:2]] == [((0,), 1), ((0,), 1)]
    assert [(each["artifact"], each["device"]) for each in document["failures"]] == [
        ("net.onnx", "empty"),
        ("net.xml", "empty"),
    ]
    assert "error: net.onnx on empty: empty: " in printed.err
    assert "pip install numpy openvino" in printed.err


def test_the_command_prints_one_table_with_every_device(artifacts, inventory, capsys):
    where = ("--device=board", "--device=local", f"--inventory={inventory}", "--concurrency", "2")
    assert main(["profile", str(artifacts["onnx"].path), *where, *QUICK_WORDS]) == 0
    out = capsys.readouterr().out
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│ net.onnx")]
    latencies, starts, requests = rows[:2], rows[2:6], rows[6:]
    assert [row[2].strip() for row in latencies] == ["board", "local"]
    assert [(row[2].strip(), row[3].strip()) for row in starts] == [
        ("board", "not used"),
        ("board", "used"),
        ("local", "not used"),
        ("local", "used"),
    ]
    assert [(row[2].strip(), row[3].strip()) for row in requests] == [("board", "2"), ("local", "2")]
    assert "board: Measured on " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "ftp://pi"], "`url` must begin with ssh:// or adb://, or be 'local', got 'ftp://pi'"),
        (["--device", "pi"], "got 'pi' without an inventory"),
        (["--device", "pi", "--inventory", "none.toml"], "`inventory` must be a file that can be read, got none.toml"),
        (["--device", "local", "--timeout", "0"], "`timeout_s` must be"),
        (["--device", "local", "--cold-starts", "-1"], "`cold_starts` must be at least 0, got -1"),
        (["--device", "local", "--cores", "1", "1"], "`cores` must be"),
        (["--timeout", "5"], "--timeout must go with --device, got no device; add --device local"),
        (["--cores", "0"], "--cores must go with --device"),
        (["--cold-starts", "0"], "--cold-starts must go with --device"),
        (["--concurrency", "2"], "--concurrency must go with --device"),
        (["--inventory", "devices.toml"], "--inventory must go with --device"),
    ],
)
def test_wrong_arguments_end_in_one_line(artifacts, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        main(["profile", str(artifacts["onnx"].path), *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert words in printed.err
    assert printed.err.count("\n") == 1

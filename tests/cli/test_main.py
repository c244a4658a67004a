"""The command itself: help, version, errors, and what it does not import."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from lightning_kd.cli import COMMANDS

OWN = [name for name, command in COMMANDS.items() if command.module != "training"]


def test_help_lists_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line.split()}
    assert {"fit", "validate", "test", "predict", "export", "profile", "compare", "match", "demo"} <= listed


def test_version_is_that_of_the_distribution(run):
    assert run("--version") == (0, f"lightning-kd {version('lightning-kd')}\n", "")


@pytest.mark.parametrize("arguments", [(), ("exprt",), ("--exprt",)])
def test_an_unknown_command_exits_with_2_and_names_the_choices(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "COMMAND" in err


@pytest.mark.parametrize("command", OWN)
def test_help_of_a_command_describes_its_options(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: lightning-kd {command}")
    assert "--json" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_an_error(run, command):
    positional = {
        "export": ["m", "--to=onnx", "--output=x"],
        "profile": ["a"],
        "compare": ["a", "b"],
        "match": ["a", "b"],
    }
    status, out, err = run(command, *positional.get(command, []), "--unknown-option")
    assert (status, out) == (2, "")
    assert err.startswith(f"lightning-kd {command}: error: ")
    assert "--unknown-option" in err
    assert err.count("\n") == 1


def test_an_abbreviated_option_is_an_error(run):
    status, _, err = run("profile", "net.onnx", "--min-sec", "1")
    assert status == 2
    assert "--min-sec" in err


def test_a_process_loads_no_runtime_for_help_and_fails_with_one_line(tmp_path):
    script = (
        "import contextlib, sys\n"
        "from lightning_kd.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "runtimes = {'coremltools', 'jsonargparse', 'onnx', 'onnxruntime', 'openvino', 'sklearn'}\n"
        "print('loaded:', sorted(runtimes & sys.modules.keys()))\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "profile", "no.onnx"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert done.stderr.startswith("lightning-kd profile: error: `path` must have a manifest beside it")
    assert done.stderr.count("\n") == 1

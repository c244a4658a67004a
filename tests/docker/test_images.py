"""The Dockerfiles as far as they can be checked without an engine: linted, pinned, and their install steps run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import exporters

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NAMES = [path.name.removesuffix(".Dockerfile") for path in DOCKERFILES]
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}


def instructions(path):
    """Pairs of instruction and arguments, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def installed(path):
    """Packages that a Dockerfile gives to install.sh."""
    (found,) = re.findall(r"sh install\.sh (/\S+ .*)", path.read_text())
    return shlex.split(found)[1:]


def install(folder, packages, options=""):
    return subprocess.run(
        ["sh", ROOT / "docker" / "install.sh", folder, *packages],  # noqa: S607
        env={**ENVIRONMENT, "UV_OPTIONS": options},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )


def test_every_target_has_an_image():
    assert NAMES == ["cpu", "executorch", "jetson", "onnxruntime-serve", "openvino-serve", "tensorrt"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=NAMES)
def test_is_clean_to_the_linter(path):
    finished = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), path], check=False, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=NAMES)
def test_is_pinned_has_stages_and_runs_as_no_root(path):
    lines = instructions(path)
    bases = [arguments.split()[0] for name, arguments in lines if name == "FROM"]
    # Nothing is installed on a Jetson: its TensorRT comes with the base image.
    assert len(bases) == (1 if path.name.startswith("jetson") else 2)
    assert all(re.search(r":[\w.]*\d", base) for base in bases)
    assert [arguments for name, arguments in lines if name == "USER"] == ["10001"]
    assert "ADD" not in {name for name, _ in lines}
    names = [name for name, _ in lines]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=NAMES)
def test_copies_only_what_is_sent_to_the_engine(path):
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for name, arguments in instructions(path)
        if name == "COPY" and "--from" not in arguments
        for word in arguments.split()[:-1]
    }
    assert copied <= sent
    assert all((ROOT / name).exists() for name in sent)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "suffix"), [("onnxruntime", "onnx", "onnx"), ("openvino", "openvino", "xml")]
)
def test_a_serving_image_has_all_that_its_runtime_needs(tmp_path, name, format, suffix):
    path = tmp_path / f"student.{suffix}"
    exporters.export(torch.nn.Linear(2, 1, bias=False), torch.zeros(1, 2), to=format, path=path)
    finished = install(tmp_path / "environment", installed(ROOT / "docker" / f"{name}-serve.Dockerfile"))
    assert finished.returncode == 0, finished.stderr
    code = (
        "import sys, numpy, exporters; session = exporters.load(sys.argv[1]); "
        "print(session.run({'input': numpy.ones((1, 2), 'float32')})['output'].tolist(), "
        "'torch' in sys.modules, session.properties['runtime_version'])"
    )
    run = subprocess.run(
        [tmp_path / "environment" / "bin" / "python", "-c", code, path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    output, torch_loaded, version = re.fullmatch(r"\[\[(\S+)\]\] (\w+) (\S+)\n", run.stdout).groups()
    expected = exporters.load(path).run({"input": np.ones((1, 2), np.float32)})["output"]
    assert float(output) == pytest.approx(float(expected[0, 0]), rel=1e-6)
    assert torch_loaded == "False"
    pinned = re.search(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert version.startswith(pinned)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu", "executorch", "tensorrt"])
def test_the_packages_of_an_image_that_is_too_large_to_install_here_fit_together(tmp_path, name):
    packages = installed(ROOT / "docker" / f"{name}.Dockerfile")
    finished = install(tmp_path / "environment", packages, "--dry-run")
    assert finished.returncode == 0, finished.stderr
    expected = {"cpu": "onnxruntime==", "executorch": "executorch==", "tensorrt": "tensorrt-cu13-libs==11.4.0.106"}
    assert f" + {expected[name]}" in finished.stderr


def test_a_package_without_a_version_is_refused(tmp_path):
    finished = install(tmp_path / "environment", ["numpy", "tensorrt-cu13"])
    assert finished.returncode == 1
    assert finished.stderr == "install.sh: tensorrt-cu13 needs a version\n"
    assert not (tmp_path / "environment").exists()

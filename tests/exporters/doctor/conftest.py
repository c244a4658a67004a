"""Packages that are not there: their metadata alone, or a module that misbehaves when it is imported."""

import os
import sys

import pytest


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with the given metadata in front of all others."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, version, *requires):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return install


@pytest.fixture
def broken_module(tmp_path, monkeypatch):
    """Put a module with the given code in front of all others, for the processes that are started."""

    def write(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))

    return write

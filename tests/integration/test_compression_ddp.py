"""Compression in two real processes over gloo, which begin with different weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("compression_ddp_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where both ranks wrote what they ended with."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return folder


def equal(first, second):
    """Nested mappings of tensors, element by element."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two_four", "channels", "ternary", "levels"])
def test_two_processes_end_with_the_same_student(name, folder):
    ranks = [torch.load(folder / f"{name}-rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert equal(*ranks)
    zeros = ranks[0]["weights"]["net.3.weight"].eq(0)
    expected = {"two_four": 32, "channels": 48}  # half of 64; in half of the columns and half of the rows
    assert int(zeros.sum()) == expected.get(name, int(zeros.sum()))

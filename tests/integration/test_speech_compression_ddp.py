"""Pruning and supernets in two real processes over gloo, which begin with different weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("speech_compression_ddp_run.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where both ranks wrote what they ended with."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pruning", "supernet"])
def test_two_processes_end_with_the_same(name, folder):
    first, second = (torch.load(folder / f"{name}-rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_close(first, second, rtol=0.0, atol=0.0)
    if name == "pruning":
        # They began at log(0.99 / 0.01) or 0, and each rank drew its own noise.
        assert first["callback"]["gates"]["gates.intermediate_0.log_alpha"].abs().gt(0.1).any()
        assert first["callback"]["constraint"]["linear"].item() != 0.0
    else:
        assert len({str(shape) for shape in first["shapes"]}) > 1

"""Two real processes over gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ddp_run.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks of both runs wrote, by find_unused_parameters."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return {
        unused: [torch.load(folder / f"unused-{unused}-rank{rank}.pt", weights_only=True) for rank in (0, 1)]
        for unused in (False, True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("find_unused", [False, True])
def test_two_processes_end_with_identical_weights(find_unused, ranks):
    first, second = ranks[find_unused]
    trained = [name for name in first["weights"] if "running" not in name]
    assert trained
    for name in trained:
        assert torch.equal(first["weights"][name], second["weights"][name]), name
    assert first["kd"]["adapters"]
    for name, value in first["kd"]["adapters"].items():
        assert torch.equal(value, second["kd"]["adapters"][name]), name
    assert first["kd"]["pairs"] == second["kd"]["pairs"]
    assert len(first["kd"]["pairs"]["cka"][0]) == 1
    for rank in (first, second):
        assert len(rank["terms"]) == 8
        for step in rank["terms"]:
            assert all(
                step[f"kd/{name}"] > 0 for name in ("logit", "feature", "cka", "dkd", "ctkd", "vid", "sp", "crd")
            )
        assert first["terms"][0]["kd/sp"] == rank["terms"][0]["kd/sp"]
    assert first["terms"][-1]["kd/second_epoch"] > 0
    assert first["terms"][0]["kd/task"] != second["terms"][0]["kd/task"]

"""Every kind of teacher in two real processes over gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("teachers_ddp_run.py")
KINDS = ["ensemble", "unlabelled", "old_classes", "ema", "past", "together", "in_turn"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks wrote."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_end_with_identical_students_and_teachers(kind, ranks):
    first, second = (rank[kind] for rank in ranks)
    trained = [name for name in first["weights"] if "running" not in name]
    assert trained
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in trained)
    kept = first["kd"].get("teacher", {}).get("weights", {})
    assert bool(kept) == (kind in ("ema", "past"))
    # Also the running statistics: ranks see different batches, and the teacher must be one.
    assert all(torch.equal(value, second["kd"]["teacher"]["weights"][name]) for name, value in kept.items())
    for name, value in first["kd"].get("adapters", {}).items():
        assert torch.equal(value, second["kd"]["adapters"][name]), name

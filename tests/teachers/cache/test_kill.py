"""A real process that is killed fifty times writes the cache that an unbroken one writes."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path, content):
    script = Path(__file__).with_name("kill_run.py")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    killed, partly, shards = map(int, run.stdout.split())
    assert killed == 50
    assert 0 < partly < shards
    broken, whole = content(tmp_path / "killed"), content(tmp_path / "whole")
    assert len(whole) == 1 + shards
    assert broken == whole

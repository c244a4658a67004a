"""Two nodes, as torchrun starts them: two launchers that meet at an address, here on the loopback."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

SCRIPT = Path(__file__).with_name("two_nodes_run.py")


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def launch(node, port, folder):
    """What is typed on one of the nodes."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    command += ["--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(SCRIPT), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def script():
    """The script that the nodes run."""
    spec = importlib.util.spec_from_file_location("two_nodes_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nodes(script, tmp_path_factory):
    """What the rank of each node ended with, taught by a network and by a cache that was written before."""
    folder, port = tmp_path_factory.mktemp("nodes"), free_port()
    script.write_cache(folder / "cache")
    launchers = [launch(node, port, folder) for node in (0, 1)]
    try:
        said = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(script):
    """What one process ends with that gets the batches of both."""
    return script.distilled(1)


@pytest.mark.slow
def test_lightning_finds_the_nodes_that_torchrun_started(nodes):
    assert [node["network"]["place"] for node in nodes] == [
        {"node": rank, "rank": rank, "processes": 2} for rank in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["network", "cache"])
@pytest.mark.parametrize("part", ["weights", "adapters"])
def test_both_nodes_end_with_one_student_and_it_is_that_of_a_single_process(part, teacher, nodes, alone):
    first, second = (node[teacher][part] for node in nodes)
    assert first
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        # Means of two halves are summed in another order than the mean of the whole batch.
        assert_close(value, alone[part][name], rtol=1e-5, atol=1e-6)

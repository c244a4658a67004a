"""Claims about batches that two real processes share over gloo, and about one process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lightning_kd.distributed import gather_rows, joint_batch

SCRIPT = Path(__file__).with_name("distributed_run.py")
RELATIONS = ["sp", "rkd", "pkt", "cc_code", "cc_paper", "cka", "cka_rbf", "cka_positions", "dist", "dist_masked", "mi"]
JOINT = {"rtol": 1e-6, "atol": 1e-12}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process computed from the joint batch, and two from their unequal shares."""
    folder = tmp_path_factory.mktemp("shares")
    ranks = [(0, 1), (0, 2), (1, 2)]
    commands = [[sys.executable, str(SCRIPT), str(folder), str(rank), str(count)] for rank, count in ranks]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}-of-{count}.pt", weights_only=True) for rank, count in ranks]


@pytest.mark.slow
@pytest.mark.parametrize("name", RELATIONS)
def test_two_processes_compute_the_term_and_the_gradient_of_the_joint_batch(name, results):
    joint, *shares = (result[name] for result in results)
    assert joint["term"] != 0
    for share in shares:
        assert_close(share["term"], joint["term"], **JOINT)
        assert share["gradients"].keys() == joint["gradients"].keys()
        for key, gradient in joint["gradients"].items():
            assert gradient.ne(0).any(), key
            assert_close(share["gradients"][key], gradient, **JOINT)


@pytest.mark.slow
def test_two_processes_remember_what_one_does(results):
    joint, *shares = (result["crd"]["buffers"] for result in results)
    assert {"objective.memory.student", "objective.memory.teacher", "objective.memory.log_partitions"} <= joint.keys()
    for share in shares:
        for key, value in joint.items():
            assert_close(share[key], value, **JOINT)


@pytest.mark.slow
def test_two_processes_have_the_rows_of_both_and_add_up_what_they_ask(results):
    rows = torch.arange(24.0, dtype=torch.float64).reshape(8, 3)
    gradients = []
    for result in results[1:]:
        assert torch.equal(result["gather"]["rows"], rows)
        assert torch.equal(result["gather"]["indices"], torch.arange(8))
        gradients.append(result["gather"]["gradient"])
    # Each of the two asks for the gradient 2x of every row.
    assert [len(gradient) for gradient in gradients] == [5, 3]
    assert torch.equal(torch.cat(gradients), 2 * 2 * rows)


def test_one_process_keeps_its_rows():
    student, teacher = torch.randn(2, 3), torch.randn(2, 4)
    assert gather_rows(student) is student
    assert joint_batch(student, teacher, gather=True) == (student, teacher)
    assert joint_batch(student, teacher, gather=False) == (student, teacher)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["frame", "utterance"])
def test_two_processes_weigh_the_frames_of_both(reduction, results):
    joint, *shares = (result["frames"][reduction] for result in results)
    assert joint != 0
    for share in shares:
        assert_close(share, joint, **JOINT)


@pytest.mark.slow
def test_two_processes_share_the_batches_of_similar_length(results):
    whole, *shares = ([tuple(batch) for batch in result["buckets"]] for result in results)
    assert len(whole) == 14
    assert [len(share) for share in shares] == [7, 7]
    assert set(shares[0]) | set(shares[1]) == set(whole)
    assert not set(shares[0]) & set(shares[1])

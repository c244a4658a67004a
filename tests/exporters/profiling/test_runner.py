"""Parts of the runner, alone; `test_job` runs the whole."""

import ast
import itertools
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exporters.profiling.runner
from exporters.parity import compare
from exporters.profiling import ProfileOptions
from exporters.profiling.job import FAILURES
from exporters.profiling.runner.checking import check_outputs, figures
from exporters.profiling.runner.concurrency import run_at_once
from exporters.profiling.runner.cores import pin, read_cores
from exporters.profiling.runner.failures import KINDS, JobError
from exporters.profiling.runner.job import Job
from exporters.profiling.runner.measure import stopwatch, with_parts
from exporters.profiling.runner.process import place
from exporters.profiling.runner.settings import RuntimeSettings

SOURCES = sorted(Path(exporters.profiling.runner.__file__).parent.rglob("*.py"))
NO_BOUND = {"max_abs_of_range": None, "relative_l2": None, "cosine": None}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are pinned on Linux")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nothing_but_the_standard_library_and_numpy_is_imported(source):
    tree = ast.parse(source.read_text(), feature_version=(3, 10))
    guarded = {node for block in ast.walk(tree) if isinstance(block, ast.If) for node in ast.walk(block)}
    absolute = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if node not in guarded
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    assert absolute <= {*sys.stdlib_module_names, "numpy"}


FLOATS = st.lists(st.floats(-100, 100), min_size=1, max_size=20)


@given(FLOATS, st.integers(0, 2**32 - 1))
def test_figures_are_those_of_the_parity_check(values, seed):
    reference = np.array(values)
    output = reference + np.random.default_rng(seed).normal(size=reference.shape)
    output[seed % 3 :: 7] = np.nan
    expected, found = compare("output", [output], [reference]), figures(output, reference)
    assert found == {name: getattr(expected, name) for name in found}


@pytest.mark.parametrize(
    ("bound", "output", "message"),
    [
        ({"relative_l2": 0.01}, [3.0, 4.1], r"relative_l2 0.02 against 0.01"),  # 0.1 / 5
        ({"max_abs_of_range": 0.05}, [3.0, 4.1], r"max_abs_of_range 0.1 against 0.05"),
        ({"cosine": 0.999}, [4.0, 3.0], r"cosine 0.96 against 0.999"),  # 24 / 25
        ({"relative_l2": 9.0}, [3.0, np.nan], r"1 elements are not finite in one of the two"),
        ({"relative_l2": 9.0}, [3.0], r"output `y` must be \(2,\), got \(1,\)"),
    ],
)
def test_outputs_beyond_the_tolerance_are_refused(bound, output, message):
    references = {"y": np.array([3.0, 4.0])}
    check_outputs(references, references, NO_BOUND | bound)
    with pytest.raises(JobError, match=message) as caught:
        check_outputs({"y": np.array(output)}, references, NO_BOUND | bound)
    assert caught.value.kind == "outputs_differ"


def test_every_kind_of_failure_has_its_error():
    assert FAILURES.keys() == set(KINDS)


def job(**changes):
    return Job(
        **{
            "format": "onnx",
            "file": "n.onnx",
            "files": {},
            "precision": "fp32",
            "artifact_options": {},
            "subject": {},
            "inputs": (),
            "outputs": (),
            "tolerance": {},
            "threads": None,
            "cores": None,
            "settings": RuntimeSettings(),
            "options": ProfileOptions(),
            "sittings": 1,
            "cold_starts": 0,
            "concurrency": (),
        }
        | changes
    )


@pytest.fixture
def affinity(monkeypatch):
    """Give this process its cores and variables back."""
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


@linux_only
def test_threads_get_as_many_cores_the_last_ones_there(affinity):
    assert place(job(threads=1)) == ((affinity[-1],), 1)
    assert read_cores() == (affinity[-1],)
    assert os.environ["OMP_NUM_THREADS"] == "1"


@linux_only
def test_cores_asked_for_are_taken_and_set_the_threads(affinity):
    assert place(job(cores=(affinity[0],))) == ((affinity[0],), 1)
    pin(affinity)
    assert place(job(cores=tuple(affinity), threads=1)) == (tuple(affinity), 1)


@linux_only
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": 4096}, r"`threads` must be at most \d+, the cores there, got 4096"),
        ({"cores": (0,), "threads": 2}, r"`threads` must be at most 1, the cores there, got 2"),
        ({"cores": (0, 4096)}, r"`cores` must be among \[0.*\] on the device, got \[0, 4096\]"),
    ],
)
def test_cores_and_threads_that_are_not_there_are_refused(affinity, changes, message):
    with pytest.raises(JobError, match=message) as caught:
        place(job(**changes))
    assert caught.value.kind == "threads"


def options(**changes):
    return ProfileOptions(**{"min_runs": 20, "min_seconds": 0.0, "max_seconds": 5.0} | changes)


def test_requests_at_once_overlap_and_all_of_their_runs_are_kept():
    inside, together, lock = [0], [], threading.Lock()

    def run():
        with lock:
            inside[0] += 1
            together.append(inside[0])
        time.sleep(0.002)
        with lock:
            inside[0] -= 1

    found = run_at_once([stopwatch(run)] * 3, options(min_runs=30))
    assert max(together) == 3
    assert len(found.latencies_ns) == len(together) - 3  # one run each before the clock starts
    assert 30 <= len(found.latencies_ns) <= 32  # each may be in its last run when the count is reached
    assert min(found.latencies_ns) >= 2_000_000
    # Three at a time: the sum of all runs is at most three times the time on the wall.
    assert sum(found.latencies_ns) <= 3 * found.elapsed_ns


def test_requests_at_once_last_the_least_time_and_at_most_the_most():
    run = stopwatch(lambda: time.sleep(0.002))
    assert run_at_once([run, run], options(min_runs=1, min_seconds=0.1)).elapsed_ns >= 100_000_000
    cut = run_at_once([run, run], options(min_runs=100_000, max_seconds=0.05))
    assert cut.elapsed_ns >= 50_000_000
    assert len(cut.latencies_ns) < 100_000


def test_a_request_that_fails_ends_the_measurement():
    runs = itertools.count()

    def run():
        if next(runs) == 5:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run_at_once([stopwatch(run)] * 2, options(min_runs=40))


def test_parts_are_read_after_every_run_and_not_timed():
    order = []

    def run():
        order.append("run")
        return 7

    def parts():
        order.append("parts")
        return {"compute": len(order)}

    timed_run, parts_ns = with_parts(run, parts)
    assert [timed_run(), timed_run()] == [7, 7]
    assert order == ["run", "parts"] * 2
    assert parts_ns == {"compute": [2, 4]}
    assert with_parts(run, None) == (run, {})

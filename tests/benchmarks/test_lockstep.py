"""Workers in lock step take turns and pass on their errors."""

import importlib.util
import threading
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "_lockstep.py"


@pytest.fixture(scope="module")
def lockstep():
    """The class under test, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("lockstep_under_test", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Lockstep


def writer(log, name):
    """A worker that writes its name at each step."""

    def work(pause):
        while True:
            pause()
            log.append(name)

    return work


def test_steps_are_taken_in_the_order_asked_for_and_no_other(lockstep):
    log = []
    with lockstep({name: writer(log, name) for name in "abc"}) as workers:
        for name in "cabbac":
            wall_s, processor_s = workers.step(name)
            assert wall_s > 0
            assert processor_s >= 0
    assert "".join(log) == "cabbac"


def test_no_thread_is_left_behind(lockstep):
    before = threading.active_count()
    with lockstep({name: writer([], name) for name in "ab"}) as workers:
        workers.step("a")
    assert threading.active_count() == before


def test_the_error_of_a_worker_reaches_the_caller_and_ends_the_others(lockstep):
    def divide(pause):
        pause()
        raise ZeroDivisionError("worker b divided by nothing")

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="worker b"), lockstep({"a": writer([], "a"), "b": divide}) as workers:
        workers.step("b")
    assert threading.active_count() == before


def test_a_worker_that_ends_by_itself_is_an_error(lockstep):
    with pytest.raises(RuntimeError, match="'a' ended by itself"), lockstep({"a": lambda pause: pause()}) as workers:
        workers.step("a")
